"""What is appraised: cases with a vector, a patient, values of one label, and attributes to group them by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrieval.types import Attributes, UnitRows

AGE_GROUPS = ((18, "0 to 17"), (40, "18 to 39"), (65, "40 to 64"), (80, "65 to 79"), (1000, "80 and over"))  # years


@dataclass(frozen=True, slots=True)
class Subjects:
    """Cases in a fixed order. ``patient_keys``: "" when unknown. ``values``: of the label, () for a case without."""

    vectors: UnitRows
    case_ids: tuple[str, ...]
    patient_keys: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]
    attributes: tuple[Attributes, ...]
    content: tuple[str, ...] = ()  # SHA-256 of the files of each, where known
    pixels: tuple[str, ...] = ()  # SHA-256 of the decoded frames of each, where known

    def __len__(self) -> int:
        return len(self.case_ids)

    def only(self, rows: Sequence[int]) -> Subjects:
        """The same for some of the cases, in the order of ``rows``."""
        return Subjects(
            self.vectors[np.asarray(rows, dtype=np.int64)],
            tuple(self.case_ids[i] for i in rows),
            tuple(self.patient_keys[i] for i in rows),
            tuple(self.values[i] for i in rows),
            tuple(self.attributes[i] for i in rows),
            tuple(self.content[i] for i in rows) if self.content else (),
            tuple(self.pixels[i] for i in rows) if self.pixels else (),
        )


@dataclass(frozen=True, slots=True)
class Grouping:
    """One way to divide cases. ``group`` [cases]: which of ``names`` each belongs to, -1 where it is not known."""

    attribute: str
    names: tuple[str, ...]
    group: npt.NDArray[np.int64]


def age_group(years: float | None) -> str:
    """The group of an age, wide enough to be measured; "" when it is not known."""
    return "" if years is None else next(name for limit, name in AGE_GROUPS if years < limit)


_ATTRIBUTES: tuple[tuple[str, Callable[[Attributes], str]], ...] = (
    ("sex", lambda attributes: attributes.sex),
    ("age", lambda attributes: age_group(attributes.age)),
    ("site", lambda attributes: attributes.source),
    ("scanner", lambda attributes: attributes.manufacturer),
)


def groupings(attributes: Sequence[Attributes]) -> tuple[Grouping, ...]:
    """By sex, age band, site (source) and scanner (manufacturer), also where nothing or one group alone is known."""
    out = []
    for name, of in _ATTRIBUTES:
        said = [of(one) for one in attributes]
        names = _in_order(name, set(said) - {""})
        number = {group: i for i, group in enumerate(names)} | {"": -1}
        out.append(Grouping(name, names, np.array([number[group] for group in said], dtype=np.int64)))
    return tuple(out)


def _in_order(attribute: str, names: set[str]) -> tuple[str, ...]:
    order = [name for _, name in AGE_GROUPS]
    return tuple(sorted(names, key=order.index if attribute == "age" else None))
