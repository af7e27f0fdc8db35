"""The tables of the catalog that Datasette shows, with words for people: views that the schema has for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

DATABASE = "catalog"


@dataclass(frozen=True)
class Shown:
    """A view: its title, what a row is, the columns to count by, and what columns mean that do not say so."""

    title: str
    row: str
    facets: tuple[str, ...] = ()
    columns: dict[str, str] = field(default_factory=dict)
    sort_desc: str | None = None


_SOURCE = {"source": "the catalog that says so: 1 is this one, others were imported"}

SHOWN: dict[str, Shown] = {
    "image_list": Shown(
        "Images and bases", "An image, or a base that one starts from.", ("kind", "name", "arch", "builder"),
        {"recorded_at": "empty: known only as the parent of another", "package_set": "images with the same number hold "
         "the same packages"}, "id",
    ),
    "image_packages": Shown(
        "Packages by image", "A package that is installed in an image. Ask for one image, or one name.",
        (), {"sha256": "of the package's file, empty where that is not known"},
    ),
    "check_results": Shown(
        "Checks", "What a check said in one run.", ("outcome", "name", "test"),
        {"exempted": "1: left out by skip_checks"},
    ),
    "current_assignments": Shown(
        "Channels now", "The image that a channel points at.", ("channel", "name"), _SOURCE,
    ),
    "assignments": Shown(
        "Promotions", "Each time a channel was moved to an image.", ("channel", "name"), _SOURCE, "made_at",
    ),
    "revoked": Shown(
        "Revocations", "An image or base that was withdrawn. All that descends from it is withdrawn with it.",
        ("reason",), {"at": "when it begins to hold", "made_at": "when it was signed", **_SOURCE}, "at",
    ),
    "running_instances": Shown(
        "Running instances", "A machine that runs, and its image.", ("fleet", "provider", "digest"), _SOURCE,
        "launched_at",
    ),
    "event_log": Shown(
        "Log", "Who did what when. Whether it is as it was written is said below.",
        ("action", "actor", "authenticated"),
        {"authenticated": "1: the actor is the fingerprint of a key whose signature was verified; 0: only the system's "
         "user, as it was called", **_SOURCE}, "source",
    ),
}  # fmt: skip
"""View -> what is said of it. What is not here is not shown. The log is in the order of its key (source, seq) read
backwards, the last event first: by seq alone, each page of it would sort all of it."""


def metadata() -> dict[str, Any]:
    """What Datasette is told of them."""
    tables = {
        name: {
            "title": one.title,
            "description": one.row,
            "columns": one.columns,
            "facets": list(one.facets),
            **({"sort_desc": one.sort_desc} if one.sort_desc else {}),
        }
        for name, one in SHOWN.items()
    }
    return {"title": "factory", "databases": {DATABASE: {"title": "Data", "tables": tables}}}
