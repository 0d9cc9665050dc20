"""A stand-in for the command `madan` that makes certified artefacts of no content, at once.

With it the real Snakefile, profile, settings and certificates are tested without training. What it
writes follows from settings, code and the content of the inputs, as the real jobs' results do.
"""

import sys

from PIL import Image

from madan import cli
from madan.files import write_whole
from madan.pipeline import certificates
from madan.pipeline.artefacts import Table
from madan.pipeline.publishing import open_job

KINDS = {
    "miniature": "miniature",
    "verify": "verified",
    "prepare": "prepared",
    "translate": "translators",
    "stylise": "stylised",
    "segment": "segmenters",
    "adapt": "adaptations",
    "import": "released",
    "evaluate": "scores",
    "table": "tables",
    "figure": "figures",
}
FILES = ("weights.safetensors", "log.csv", "score.json", "figure.png", "figure.pdf")


def main() -> None:
    command, *words = sys.argv[1:]
    if command not in KINDS:
        return cli.main()
    options = dict(zip(words, words[1:], strict=False))
    names = words[: next(k for k, word in enumerate(words) if word.startswith("--"))]
    address = "/".join([KINDS[command], *names])
    job = open_job(address, int(options.get("--seed", 0)), options["--planned"])
    if job is None:
        return
    if isinstance(job.artefact, Table):
        for page in job.artefact.pages.values():
            metrics = page.suffix == ".json"
            text = '{"row": {"miou19": 1.0}}\n' if metrics else f"row\n{job.key}\n"
            write_whole(page, text)
        made = job.certificate(job.artefact.files(job.params), job.folder(job.artefact))
        certificates.write(job.graph.certificate(job.artefact), made)
        return
    with job.publish() as out:
        for name in FILES:
            (out / name).write_text(job.key)
        if command == "figure":
            Image.new("RGB", (90, 30), "teal").save(out / "figure.png")


if __name__ == "__main__":
    main()
