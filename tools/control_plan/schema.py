"""What a control plan may say.

.. code-block:: yaml

    control_plan: CP-17
    products:
      - product: transistor
        normal_traits: [The mark on the case may be faint.]
        false_alarm: 0.02
        scale_px_per_mm: 38.4
        picture_size_px: [640, 640]
        regions:
          - {name: fixture, look: ignore, box: [0, 600, 640, 640]}
        tools: [count, measurement]
        characteristics:
          - characteristic: lead geometry
            severity: 8
            disposition: rework
            defects:
              - {type: bent_lead, note: A lead is bent outwards.}

The import of defects into the knowledge base (``tools.knowledge.control_plan``) reads the same file: what is said of
the inspection is left to this schema there, and what is said of defects is the same here. Severity, disposition and
reaction plan hold for everything below that says nothing else.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Text = Annotated[str, Field(min_length=1, max_length=500)]
Name = Annotated[str, Field(min_length=1, max_length=120)]
Severity = Annotated[int, Field(ge=1, le=10)] | Annotated[str, Field(min_length=1, max_length=40)]
Tool = Literal["template", "count", "presence", "arrangement", "measurement"]
INSPECTION_KEYS = frozenset(
    {"normal_traits", "false_alarm", "scale_px_per_mm", "scale_uncertainty", "picture_size_px", "regions", "tools"}
)
"""Keys of a product that speak of its inspection rather than of its defects."""


class Closed(BaseModel):
    """Immutable; an unknown key is an error, so a misspelt one is seen."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Consequence(Closed):
    """What is done about a defect.

    Attributes:
        severity: 1 to 10, as in an FMEA, or a word.
        disposition: what becomes of the part, such as ``scrap`` or ``rework``; ``action`` in older plans.
        reaction_plan: what is done at the line.
    """

    severity: Severity | None = None
    disposition: Text | None = Field(None, alias="action")
    reaction_plan: Text | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_name(cls, data: Any) -> Any:
        if isinstance(data, dict) and "disposition" in data and "action" in data:
            raise ValueError("disposition and action are the same: give one")
        return data


class PlannedDefect(Consequence):
    """A known defect.

    Attributes:
        type: its name as in the knowledge base.
        note: what it looks like.
        picture: path of an example, relative to the plan, for the import into the knowledge base.
    """

    id: Name | None = None
    type: Name | None = None
    note: Text | None = None
    title: Text | None = None
    causes: tuple[Text, ...] | Text = ()
    consequences: tuple[Text, ...] | Text = ()
    confirm: Text | None = None
    picture: Text | None = None
    box: tuple[int, int, int, int] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> PlannedDefect:
        if not self.type and not self.note:
            raise ValueError("neither a type nor a note is given")
        return self


class Characteristic(Consequence):
    """What is checked on a product, and the defects that can be found there."""

    characteristic: Name = Field(alias="name")
    defects: tuple[PlannedDefect, ...] = ()


class PlannedRegion(Closed):
    """A place of the picture.

    Attributes:
        name: what is there.
        look: whether it is the only place that is judged (with others like it), or not judged at all.
        box: x0, y0, x1, y1, half-open, px of a picture of ``picture_size_px``.
    """

    name: Name
    look: Literal["inspect", "ignore"]
    box: tuple[int, int, int, int]

    @field_validator("box")
    @classmethod
    def _is_half_open(cls, box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
        if not (0 <= box[0] < box[2] and 0 <= box[1] < box[3]):
            raise ValueError("a box is x0, y0, x1, y1 with x0 < x1 and y0 < y1")
        return box


class ProductPlan(Consequence):
    """All that is planned for one product.

    Attributes:
        product: its name.
        normal_traits: what good parts may look like.
        false_alarm: share of good parts that may alarm; used when the product is enrolled.
        scale_px_per_mm: pixels of the picture a millimetre; None measures nothing in millimetres.
        scale_uncertainty: relative standard uncertainty of the scale; None when nobody determined it.
        picture_size_px: (width, height) that the boxes of regions are given in.
        regions: to inspect or to ignore.
        tools: checks beyond the comparison of texture.
        characteristics: what is checked, with the known defects.
        defects: known defects of no particular characteristic.
    """

    product: Name = Field(alias="name")
    normal_traits: tuple[Text, ...] = ()
    false_alarm: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    scale_px_per_mm: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] | None = None
    scale_uncertainty: Annotated[float, Field(ge=0.0, lt=1.0)] | None = None
    picture_size_px: tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]] | None = None
    regions: tuple[PlannedRegion, ...] = ()
    tools: tuple[Tool, ...] = ()
    characteristics: tuple[Characteristic, ...] = ()
    defects: tuple[PlannedDefect, ...] = ()

    @model_validator(mode="after")
    def _hangs_together(self) -> ProductPlan:
        if self.regions and self.picture_size_px is None:
            raise ValueError("regions need picture_size_px, the size that their boxes are given in")
        if self.picture_size_px is not None:
            width, height = self.picture_size_px
            for region in self.regions:
                if region.box[2] > width or region.box[3] > height:
                    raise ValueError(f"the region {region.name} leaves the picture of {width} x {height} px")
        if "measurement" in self.tools and self.scale_px_per_mm is None:
            raise ValueError("the tool measurement needs scale_px_per_mm")
        return self

    def ignored_shares(self) -> tuple[tuple[float, float, float, float], ...]:
        """Boxes that are not judged, XYXY as shares of the picture's sides."""
        return self._shares("ignore")

    def inspected_shares(self) -> tuple[tuple[float, float, float, float], ...]:
        """Boxes that alone are judged, XYXY as shares of the picture's sides; none means everywhere."""
        return self._shares("inspect")

    def _shares(self, look: str) -> tuple[tuple[float, float, float, float], ...]:
        if self.picture_size_px is None:
            return ()
        width, height = self.picture_size_px
        boxes = [region.box for region in self.regions if region.look == look]
        return tuple((x0 / width, y0 / height, x1 / width, y1 / height) for x0, y0, x1, y1 in boxes)

    def consequence_of(self, defect_type: str | None) -> Consequence:
        """What is done about a defect: what its own entry says, else its characteristic, else the product.

        Args:
            defect_type: its name; a name that the plan does not know, or None, gets what the product says.
        """
        for characteristic in (None, *self.characteristics):
            for defect in self.defects if characteristic is None else characteristic.defects:
                if defect_type is not None and defect.type is not None and _same(defect.type, defect_type):
                    return _first(defect, characteristic, self)
        return _first(self)


class ControlPlan(Closed):
    """A file: one plan for one or several products."""

    control_plan: Name | None = None
    products: tuple[ProductPlan, ...]

    @model_validator(mode="after")
    def _each_once(self) -> ControlPlan:
        if not self.products:
            raise ValueError("no product is planned")
        names = [plan.product for plan in self.products]
        if len(set(names)) != len(names):
            raise ValueError("a product is planned twice")
        return self


def _same(left: str, right: str) -> bool:
    return left.strip().lower().replace(" ", "_").replace("-", "_") == right.strip().lower().replace(" ", "_").replace(
        "-", "_"
    )


def _first(*levels: Consequence | None) -> Consequence:
    said: dict[str, Any] = {}
    for level in filter(None, levels):
        for key in ("severity", "disposition", "reaction_plan"):
            if said.get(key) is None:
                said[key] = getattr(level, key)
    return Consequence(**said)
