"""The ladder: what a model is given with a question, one thing more from row to row, and the controls beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...agent.errors import ConfigError
from .evidence import Mode

Told = Literal["raw", "calibrated"]


@dataclass(frozen=True)
class Arm:
    """A row.

    Attributes:
        name: as in the table, and of its folder.
        what: it adds, in a few words.
        against: the row that it is compared with; None for the first.
        references: whether a good picture is shown.
        pages: how retrieved pages are chosen; None for none.
        told: the expert's evidence as text, raw or calibrated and gated; None for none.
        tokens: E_c among the embeddings.
        think: latent reasoning, or one of its controls, by the name it has there; None for none.
        retries: ask again with further evidence while the answer's entropy is high.
        signs: ask again for signs of doubt, drawn and in other orders of the options; the answers are the row's own.
        refutes: argue against the area that was found when the entropy is high.
        needs: what it needs that may be missing; the table then says so.
    """

    name: str
    what: str
    against: str | None
    references: bool = True
    pages: Mode | None = None
    told: Told | None = None
    tokens: bool = False
    think: str | None = None
    retries: bool = False
    signs: bool = False
    refutes: bool = False
    needs: tuple[str, ...] = ()

    @property
    def is_control(self) -> bool:
        """Whether it stands beside the ladder rather than on it."""
        return "." in self.name


LADDER: tuple[Arm, ...] = (
    Arm("A0", "question and picture alone", None, references=False),
    Arm("A1", "+ a good reference", "A0"),
    Arm("A2", "+ pages, the nearest (top-k)", "A1", pages="top_k"),
    Arm("A3", "+ pages chosen as the settings say", "A2", pages="default"),
    Arm("A3.rel", "the same places for relevance", "A2", pages="relevance"),
    Arm("A3.kde", "the same places by KDE-Sample as published", "A2", pages="paper"),
    Arm("A3.mmr", "the same places by MMR", "A2", pages="mmr"),
    Arm("A4", "+ the expert's evidence as text, raw", "A3", pages="default", told="raw"),
    Arm("A5", "calibrated and gated instead", "A4", pages="default", told="calibrated"),
    Arm("A5.nodoc", "A5 without pages", "A5", told="calibrated"),
    Arm("A5.noref", "A5 without the reference picture", "A5", references=False, pages="default", told="calibrated"),
    Arm("A5.signs", "A5, asked again for signs of doubt", "A5", pages="default", told="calibrated", signs=True),
    Arm("A6", "A5 + prior tokens", "A5", pages="default", told="calibrated", tokens=True, needs=("tokens",)),
    Arm("A7", "A5 + prompts by type (HSP)", "A5", pages="default", told="calibrated", needs=("text tower",)),
    Arm("A8", "A5 + latent reasoning", "A5", pages="default", told="calibrated", think="latent", needs=("local",)),
    *(
        Arm(f"A8.{short}", what, "A5", pages="default", told="calibrated", think=name, needs=("local",))
        for short, name, what in (
            ("dummy", "dummy", "as many full stops in place of think tokens"),
            ("initial", "initial", "think tokens as they begin, not searched for"),
            ("random", "random_direction", "moved as far in a random direction"),
            ("inject", "inject_only", "picture features injected, tokens not searched for"),
            ("vote", "self_consistency", "the same compute spent on other orders of the options"),
            ("again", "reask", "asked again, temperature 0"),
        )
    ),
    Arm("A9", "A5 + retries with further looks and pages", "A5", pages="default", told="calibrated", retries=True),
    Arm("A9.refute", "A5 + arguing against the area found", "A5", pages="default", told="calibrated", refutes=True),
)
BY_NAME = {arm.name: arm for arm in LADDER}


def arms_named(names: list[str] | None) -> tuple[Arm, ...]:
    """Arms in the ladder's order, with the rows that they are compared with; all when None.

    Raises:
        ConfigError: there is no arm of a name.
    """
    if names is None:
        return LADDER
    if unknown := [name for name in names if name not in BY_NAME]:
        raise ConfigError(f"no arm {', '.join(unknown)}.", hint=f"Known: {', '.join(BY_NAME)}.")
    wanted = set(names)
    for name in names:
        against = BY_NAME[name].against
        if against is not None:
            wanted.add(against)
    return tuple(arm for arm in LADDER if arm.name in wanted)
