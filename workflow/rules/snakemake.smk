# What the documentation of Snakemake offers no way for. tests/test_upgrades.py tells when an
# upgrade takes one of these away.


def look_for_jobs_only_when_one_has_ended():
    # With a limit of jobs per timespan Snakemake looks for jobs once every timespan, once more for
    # every job that has ended: a third of a core after 75 jobs at its default of a second. A
    # longer timespan delays the end of every run, since Snakemake waits for its timers.
    # (`snakemake --help`, --max-jobs-per-timespan, has no value for no limit.)
    workflow.scheduler.job_rate_limiter = None


def requested_files():
    # The targets of the command line, and the files of those that are rules. (No function or
    # variable of the documented language gives them: `snakemake --help`, targets.)
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
