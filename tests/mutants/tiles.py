"""Bugs in tiles.cuh."""

from tests.mutants.mutant import planted

MUTANTS = planted(
    "tiles.cuh",
    ("dmma.product",),
    {
        "the last rows of tiles are taken for many": (
            "height = left < TILE_GROUP ? left : TILE_GROUP",
            "height = TILE_GROUP",
        ),
        "all rows of tiles are one group": (
            "height = left < TILE_GROUP ? left : TILE_GROUP",
            "height = left",
        ),
        "tiles are walked as though there were one group": (
            "inside = tile % (TILE_GROUP * across)",
            "inside = tile",
        ),
        "every group is the first": (
            "group = tile / (TILE_GROUP * across)",
            "group = 0",
        ),
        "tiles down and across are exchanged": (
            "tile / (TILE_GROUP * across)",
            "tile / (TILE_GROUP * down)",
        ),
        "the last tile down is lost": ("down = (rows + HEIGHT - 1)", "down = (rows - 1)"),
        "the last tile across is lost": (
            "across = (columns + WIDTH - 1)",
            "across = (columns - 1)",
        ),
        "rows begin at the group": ("group * TILE_GROUP + inside % height", "inside % height"),
        "a column of tiles is a row": ("inside / height * WIDTH", "inside % height * WIDTH"),
    },
)
