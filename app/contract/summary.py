"""What inspection found in an upload."""

from app.contract.base import Contract
from app.contract.menu import Menu
from app.contract.spec import Task


class ArrayInfo(Contract):
    """A named array. A dimension that may vary is a string (its symbol) instead of a number.

    `minimum` and `maximum` are those of a data set's values. Targets of whole numbers may hold −100, which
    marks what is ignored: `ignored` counts it, and the range leaves it out. Of a model's input they are the
    least and the largest index, where it holds indices into a table, and `row_axis` is the axis at which the
    rows of a data set go in, which come first there: null of an input without such an axis, which is the same
    for all rows. `classes` are the names of the folders
    that the labels 0, 1, … stand for, in data sets of pictures. Raw text is one array, `text`, of the dtype
    `string`, whose rows are the lines that are not blank.
    """

    name: str
    dtype: str
    shape: list[int | str]
    minimum: float | None = None
    maximum: float | None = None
    ignored: int = 0
    classes: list[str] | None = None
    row_axis: int | None = 0


class LayerInfo(Contract):
    """A layer that holds weights: its cost, and the methods it may take with their largest rank."""

    name: str
    kind: str
    shape: list[int]
    groups: int = 1
    parameters: int
    macs: int
    methods: list[str] = []
    max_rank: dict[str, list[int]] = {}
    reason: str | None = None


class PairInfo(LayerInfo):
    """Two layers that meet in an attention, and can be one under `joint_svd`."""

    members: tuple[str, str]


class TokenizerInfo(Contract):
    """What makes rows of raw text: its ids are below `ids`, and a row has `longest` tokens at most (null: any
    number). `tasks` are those that raw text has targets for, and `none`."""

    ids: int
    longest: int | None = None
    tasks: list[Task]


class FolderInfo(Contract):
    """What a Hugging Face folder says of its model besides the network: the class in transformers, and the
    tokenizer, where the model takes nothing but tokens."""

    architecture: str
    tokenizer: TokenizerInfo | None = None


class ModelSummary(Contract):
    """A network: its signature and cost. Where a job asks for `joint_svd`, `pairs` stand for their members
    among the `layers`. MACs are for batch 1, one multiply-accumulate as 1. `menus` are what plans are made
    of, with the layers' default methods; very large models have none, and those older than plans. `folder` is
    null for models that did not come as one, or before folders could be made."""

    inputs: list[ArrayInfo]
    outputs: list[ArrayInfo]
    parameters: int
    macs: int
    layers: list[LayerInfo]
    pairs: list[PairInfo] = []
    menus: list[Menu] | None = None
    folder: FolderInfo | None = None


class DatasetSummary(Contract):
    """A data set: arrays that share their first axis, `rows` long."""

    rows: int
    arrays: list[ArrayInfo]
