"""snakemake --lint without its one advice that cannot hold here: an environment for every rule.

The project has one environment for all, so that advice, and that alone, is filtered.
"""

import subprocess
import sys

ADVICE = "    * Specify a conda environment or container for each rule.:"


def main() -> None:
    done = subprocess.run(["snakemake", "--lint"], capture_output=True, text=True)
    said = done.stdout + done.stderr
    others = [line for line in said.splitlines() if line.startswith("    * ") and line != ADVICE]
    if others or (done.returncode and ADVICE not in said):
        sys.exit(said)


if __name__ == "__main__":
    main()
