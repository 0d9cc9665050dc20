"""A stand-in for the command `madan` that makes certified artefacts of no content, at once.

With it the real Snakefile, profile, settings and certificates are tested without training.
"""

import sys

from PIL import Image

from madan import assembly, certificates, cli

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
FILES = (
    "items.json", "weights.safetensors", "log.csv", "images.npy", "labels.npy", "score.json",
    "report.json", "0/images.npy", "figure.png", "figure.pdf",
)  # fmt: skip


def main() -> None:
    command, *words = sys.argv[1:]
    if command not in KINDS:
        return cli.main()
    options = dict(zip(words, words[1:], strict=False))
    names = words[: next(k for k, word in enumerate(words) if word.startswith("--"))]
    seed, planned = int(options.get("--seed", 0)), options["--planned"]
    graph, artefact, _ = assembly.begin(KINDS[command], "/".join(names), seed, planned)
    if command == "table":
        path, pages = graph.table(names[0]), list(graph.pages(names[0]).values())
        for page in pages:
            certificates.write_whole(page, f"row\n{graph.planned(artefact)}\n")
        certificates.write_whole(path.with_name("metrics.json"), '{"row": {"miou19": 1.0}}\n')
        line = graph.certify(artefact, path.parent, pages)
        certificates.write_whole(graph.certificate(artefact), line)
        return
    with graph.publish(artefact) as out:
        (out / "0").mkdir()
        for name in FILES:
            (out / name).write_text(graph.planned(artefact))
        # No file was released here: nothing else may look like one.
        (out / "report.json").write_text('{"sha256": "missing"}')
        if command == "figure":
            Image.new("RGB", (90, 30), "teal").save(out / "figure.png")


if __name__ == "__main__":
    main()
