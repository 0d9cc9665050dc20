# Code that uses undocumented parts of Snakemake. tests/test_upgrades.py fails if an upgrade
# changes one of them.


def look_for_jobs_only_when_one_has_ended():
    # With a limit of jobs per timespan, Snakemake looks for jobs once per timespan, and once more
    # for every finished job. After 75 jobs, at the default of one second, this takes a third of a
    # core. A longer timespan delays the end of every run, because Snakemake waits for its timers.
    # --max-jobs-per-timespan has no value that removes the limit.
    workflow.scheduler.job_rate_limiter = None


def requested_files():
    # The targets of the command line, and the files of targets that are rules. The documented
    # language has no function or variable for them.
    targets = workflow.dag_settings.targets or [workflow.default_target]
    files = [os.path.relpath(target) for target in targets]
    for each in map(workflow.get_rule, filter(workflow.is_rule, targets)):
        named = (*each.input, *each.output)
        files += [str(file) for file in named if not callable(file)]
    return map(Path, files)


def are_rules_forced():
    # A forced job hides jobs that are out of date and lie behind current ones. (`snakemake --help`,
    # --forcerun. With --until and --omit-from it is wanted that results stay out of date.)
    asked = workflow.dag_settings
    return bool(asked.forcerun) and not (asked.until or asked.omit_from)
