"""Sections of params.yaml for data: the drawn world, layouts, domains."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from madan import labels
from madan.config.keys import Count, Fraction, Model, Name, Size

Split = Literal["train", "val", "test"]
Byte = Annotated[int, Field(ge=0, le=255)]
ClassName = Annotated[str, Field(json_schema_extra={"enum": list(labels.CLASSES)})]


class Miniature(Model):
    """The drawn world that stands in for datasets: which are drawn, and how much of them."""

    seed: int = Field(ge=0)
    size: Size
    images: dict[Name, dict[Literal["train", "val", "test"], Count]]
    looks: dict[Name, Literal["gta5", "synthia", "cityscapes", "bdd100k"]] = Field(
        {}, description="domains that show their layout's own scenes in another domain's look"
    )


class Layout(Model):
    """How a dataset of one's own lies below its root, and which classes its labels hold."""

    images: str = Field(description="such as images/{split}/{name}.jpg, or images/img_{name}.png")
    labels: str | None = Field(
        description="such as labels/{split}/{name}.png, or labels/seg_{name}.png; null: there are "
        "no labels, so the dataset can only be a target"
    )
    folders: dict[str, str] = Field({}, description="what {split} stands for, if not its name")
    ids: Name | dict[ClassName, list[Byte]] | None = Field(
        None, description="ids of each class, or the release whose ids these are"
    )
    colours: dict[ClassName, list[tuple[Byte, Byte, Byte]]] | None = Field(
        None, description="colours of each class, where labels are colour images"
    )
    ignore: list[Byte | tuple[Byte, Byte, Byte]] = Field(
        [], description="ids or colours that are known and not counted"
    )
    otherwise: Literal["ignore"] | None = Field(
        None, description="ignore: ids or colours that are not named here are not counted either"
    )
    regions: list[tuple[Fraction, Fraction, Fraction, Fraction]] = Field(
        [],
        description="parts of every picture that are not counted, such as the camera's own car: "
        "top, left, bottom, right as fractions of its height and width",
    )
    source: str = Field("", description="where the dataset comes from; exports state it")
    licence: str = Field("", description="its terms; exports state them")


class Domain(Model):
    """A dataset (layout, root, size, shards) or the union of several treated as one."""

    layout: Name | None = Field(None, description="a release's, or one of `layouts`")
    root: str | None = Field(None, description="folder of the downloads, in their native layout")
    size: Size | None = Field(None, description="size that training reads")
    shards: Count = 1
    splits: Literal["given", "all"] | dict[Split, Fraction] = Field(
        "given", description="the release's, all for training, or shares to derive lists by"
    )
    exclude: dict[str, str] = Field({}, description="names of images to leave out, with reasons")
    known_damage: Literal["exclude", "keep"] = "exclude"
    union: Annotated[list[Name], Field(min_length=2)] | None = None


class Dataset(Model):
    """A domain that is a dataset of its own, with its layout if that is the user's."""

    layout: str
    own: Layout | None
    root: Path
    size: tuple[int, int]
    shards: int
    splits: Literal["given", "all"] | dict[str, float]
    exclude: dict[str, str]
    known_damage: str
