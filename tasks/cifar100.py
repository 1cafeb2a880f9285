"""CIFAR-100's classes by superclass, and its natural and artificial halves."""

from __future__ import annotations

from collections.abc import Iterable

SUPERCLASSES: dict[str, tuple[str, ...]] = {
    "aquatic mammals": ("beaver", "dolphin", "otter", "seal", "whale"),
    "fish": ("aquarium_fish", "flatfish", "ray", "shark", "trout"),
    "flowers": ("orchid", "poppy", "rose", "sunflower", "tulip"),
    "food containers": ("bottle", "bowl", "can", "cup", "plate"),
    "fruit and vegetables": ("apple", "mushroom", "orange", "pear", "sweet_pepper"),
    "household electrical devices": ("clock", "keyboard", "lamp", "telephone", "television"),
    "household furniture": ("bed", "chair", "couch", "table", "wardrobe"),
    "insects": ("bee", "beetle", "butterfly", "caterpillar", "cockroach"),
    "large carnivores": ("bear", "leopard", "lion", "tiger", "wolf"),
    "large man-made outdoor things": ("bridge", "castle", "house", "road", "skyscraper"),
    "large natural outdoor scenes": ("cloud", "forest", "mountain", "plain", "sea"),
    "large omnivores and herbivores": ("camel", "cattle", "chimpanzee", "elephant", "kangaroo"),
    "medium-sized mammals": ("fox", "porcupine", "possum", "raccoon", "skunk"),
    "non-insect invertebrates": ("crab", "lobster", "snail", "spider", "worm"),
    "people": ("baby", "boy", "girl", "man", "woman"),
    "reptiles": ("crocodile", "dinosaur", "lizard", "snake", "turtle"),
    "small mammals": ("hamster", "mouse", "rabbit", "shrew", "squirrel"),
    "trees": ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"),
    "vehicles 1": ("bicycle", "bus", "motorcycle", "pickup_truck", "train"),
    "vehicles 2": ("lawn_mower", "rocket", "streetcar", "tank", "tractor"),
}
"""The fine classes of every superclass, by their official names (Krizhevsky 2009, section 3)."""

# The papers name two halves and list the superclasses of neither. Here the artificial half is what people make; a
# dinosaur and a lobster on a plate are natural, as their superclasses are.
ARTIFICIAL = (
    "food containers",
    "household electrical devices",
    "household furniture",
    "large man-made outdoor things",
    "vehicles 1",
    "vehicles 2",
)
"""Superclasses of the artificial half; the other fourteen are the natural one."""


def fine(superclasses: Iterable[str]) -> tuple[str, ...]:
    """The fine classes of some superclasses in alphabetical order, which is the official order."""
    return tuple(sorted(member for name in superclasses for member in SUPERCLASSES[name]))


def half(artificial: bool) -> tuple[str, ...]:
    """The fine classes of a half.

    Example:
        >>> len(half(artificial=True)), len(half(artificial=False))
        (30, 70)
    """
    return fine(name for name in SUPERCLASSES if (name in ARTIFICIAL) == artificial)
