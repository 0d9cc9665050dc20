# What the documentation of Snakemake offers no way for. tests/test_upgrades.py tells when an
# upgrade takes one of these away.


def look_for_jobs_only_when_one_has_ended():
    # With a limit of jobs per timespan Snakemake looks for jobs once every timespan, once more for
    # every job that has ended: a third of a core after 75 jobs at its default of a second. A
    # longer timespan delays the end of every run, since Snakemake waits for its timers.
    # (`snakemake --help`, --max-jobs-per-timespan, has no value for no limit.)
    workflow.scheduler.job_rate_limiter = None
