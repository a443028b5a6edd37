"""The text of a request file as plain data. It is untrusted, so YAML is cut down to what JSON can say.

YAML's aliases expand a few hundred bytes to gigabytes, its tags and dates make objects, its numbers in base 60 take
quadratic time, and a key given twice loses one of its values without a word.
"""

from __future__ import annotations

import json
from collections.abc import Hashable
from typing import Any

import yaml

from msdm_engine.errors import RequestError

#: Longest number that is read; 2^64 has 20 digits, a float64 is exact with 17.
MAX_NUMBER_CHARACTERS = 64
_PLAIN_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map")}


def plain_data(text: str) -> Any:
    """Reads JSON, or YAML without aliases, tags and dates.

    Returns:
        None, bool, int, float (NaN and infinities among them), str, and lists and dicts of these.

    Raises:
        RequestError: neither JSON nor YAML, not plain data, too deep, or a key that is given twice.
    """
    try:
        # YAML contains JSON almost: it takes no tabs, and 1e5 for a text.
        return json.loads(text, object_pairs_hook=_json_object)
    except (ValueError, RecursionError):
        pass  # then it is YAML, which says what is wrong with it
    try:
        return yaml.load(text, _PlainLoader)  # derived from SafeLoader
    except RecursionError as error:
        raise RequestError("the request is nested too deeply", note="a request has five levels") from error
    except (yaml.YAMLError, ValueError) as error:
        raise RequestError(f"the request is neither YAML nor JSON: {str(error)[:300]}") from error


def _json_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _twice(key)
        found[key] = value
    return found


def _twice(key: object) -> RequestError:
    return RequestError(f"the key {str(key)[:60]!r} is given twice", hint="remove one of them")


class _PlainLoader(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        where = f"in line {event.start_mark.line + 1}"
        if isinstance(event, yaml.events.AliasEvent):
            raise RequestError(
                f"the request uses a YAML alias {where}", note="aliases are refused: write the value out"
            )
        if getattr(event, "tag", None) is not None:
            raise RequestError(f"the request uses the YAML tag {event.tag[:60]!r} {where}", note="tags are refused")
        node = super().compose_node(parent, index)
        if node is not None and node.tag not in _PLAIN_TAGS:  # a date, a merge key
            kind = node.tag.rpartition(":")[2]
            raise RequestError(f"the request holds a YAML {kind} {where}", hint="put the text into quotes")
        number = node.value if isinstance(node, yaml.ScalarNode) and node.tag.endswith((":int", ":float")) else ""
        if len(number) > MAX_NUMBER_CHARACTERS:
            raise RequestError(
                f"the request holds a number of {len(number)} characters {where}",
                note=f"at most {MAX_NUMBER_CHARACTERS}",
            )
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for name in (key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if name in seen:
                raise _twice(name)
            seen.add(name)
        return super().construct_mapping(node, deep)
