"""The drawings of rooms show the rooms that there are, in the order that the layers have."""

from __future__ import annotations

import configparser
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import parallel_core

HOME = Path(__file__).parents[1]
#: Modules that no drawing shows: what starts the command line, and the number of the version.
NOT_DRAWN = {"__main__", "_version"}
GUIDE = (HOME / "doc" / "architecture.md").read_text(encoding="utf-8")
SETTINGS = HOME / "setup.cfg"


def rooms_there_are() -> set[str]:
    """Return the modules and folders of the package."""
    home = HOME / "parallel_core"
    folders = {path.parent.name for path in home.glob("*/__init__.py")}
    modules = {path.stem for path in home.glob("*.py")} - {"__init__"}
    return (folders | modules) - NOT_DRAWN


def layers() -> list[set[str]]:
    """Return the rooms of each layer that the contract names and that exist, from the top."""
    settings = configparser.ConfigParser()
    settings.read(SETTINGS, encoding="utf-8")
    lines = settings["importlinter:contract:rooms"]["layers"].split("\n")
    named = [set(re.findall(r"\w+", line)) & rooms_there_are() for line in lines]
    return [layer for layer in named if layer]


def drawn_layers(text: str) -> list[set[str]]:
    """Return the rooms of each line of a drawing that begins with rooms; `text` has it indented."""
    found = []
    for line in text.splitlines():
        rooms = re.match(r" {0,20}((?:\w+(?: : |  (?=\w+  ))?)+)(?:  |$)", line)
        if rooms is not None:
            found.append(set(re.findall(r"\w+", rooms[1])))
    return found


def drawing_of_the_guide() -> str:
    _, _, section = GUIDE.partition("\n## Rooms\n")
    return section.split("```text\n")[1].split("```")[0]


def drawing_of_the_package() -> str:
    assert parallel_core.__doc__ is not None
    return parallel_core.__doc__.split("::\n\n")[1].split("\n\n")[0]


def test_every_room_has_a_layer() -> None:
    assert set().union(*layers()) == rooms_there_are()


@pytest.mark.parametrize("drawing", [drawing_of_the_guide, drawing_of_the_package])
def test_a_drawing_shows_the_rooms_in_the_order_of_the_layers(drawing: Callable[[], str]) -> None:
    drawn = drawn_layers(drawing())
    shown = set().union(*drawn)
    assert shown == rooms_there_are(), "draw each room in doc/architecture.md and in __init__.py"
    position = {room: number for number, layer in enumerate(layers()) for room in layer}
    order = [sorted({position[room] for room in line}) for line in drawn]
    flat = [number for line in order for number in line]
    assert flat == sorted(flat), "the drawing is in another order than the layers in setup.cfg"
