#!/bin/sh
# properties = {properties}
# Slurm warns this shell alone (--signal=B:USR1); it passes the warning on to all of its job.
trap 'trap "" USR1; kill -USR1 0' USR1
(
    trap "" USR1
    {exec_job}
) &
wait $!
status=$?
while [ $status -gt 128 ] && kill -0 $! 2>/dev/null; do
    wait $!
    status=$?
done
exit $status
