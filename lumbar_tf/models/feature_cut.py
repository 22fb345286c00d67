"""Where a backbone is cut so that a map of places can be read from it: deep, and not too coarse."""

from typing import Any

import keras

#: A map has at least so many cells along an edge, where the backbone has such a one: 5 to 10 mm of a crop of
#: 45 to 60 mm. The last map of a small crop may have two cells.
MIN_CELLS = 6


def cut_backbone(base: keras.Model, *, min_cells: int = MIN_CELLS) -> tuple[keras.Model, keras.Layer]:
    """Cuts a backbone in two at its deepest map that is fine and not bypassed.

    Args:
        base: a functional model from an image to a feature map.
        min_cells: cells along an edge that are wanted.

    Returns:
        From the image to the map, and from the map to what the backbone gives. They share its layers. Where
        no map is so fine, the cut is at the backbone's own output.
    """
    fine = [each for each in _bottlenecks(base.output) if _is_map(each) and each.shape[1] >= min_cells]
    # The image itself comes first, and is no feature.
    cut = fine[-1] if len(fine) > 1 else base.output
    rest = keras.layers.Identity() if cut is base.output else keras.Model(cut, base.output)
    return keras.Model(base.input, cut), rest


def _is_map(tensor: Any) -> bool:
    """Tells whether a tensor is of places that cover the image evenly; one that was just padded is not."""
    padded = isinstance(tensor._keras_history.operation, keras.layers.ZeroPadding2D)
    return len(tensor.shape) == 4 and not padded


def _bottlenecks(output: Any) -> list[Any]:
    """Returns the tensors that every path from the input to the output leads through, in order."""
    order = _in_order(output)
    place = {id(each): number for number, each in enumerate(order)}
    last_use = list(range(len(order)))
    for number, each in enumerate(order):
        for source in _sources(each):
            last_use[place[id(source)]] = number
    found, reach = [], 0
    for number, each in enumerate(order):
        # Nothing before it is asked for behind it.
        if reach <= number:
            found.append(each)
        reach = max(reach, last_use[number])
    return found


def _in_order(output: Any) -> list[Any]:
    """Returns a tensor and all that it is made of, each behind its own sources."""
    done: dict[int, Any] = {}
    waiting = [output]
    while waiting:
        each = waiting[-1]
        ahead = [source for source in _sources(each) if id(source) not in done]
        if ahead:
            waiting += ahead
        else:
            done[id(waiting.pop())] = each
    return list(done.values())


def _sources(tensor: Any) -> list[Any]:
    operation, node, _ = tensor._keras_history
    return list(operation._inbound_nodes[node].input_tensors)
