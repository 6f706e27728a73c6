"""Bugs in tiles.cuh."""

from tests.mutants.mutant import planted

MUTANTS = planted(
    "tiles.cuh",
    ("dmma.product",),
    {
        "the last rows of tiles are taken for many": (
            "height = rows_left < TILE_GROUP ? rows_left : TILE_GROUP",
            "height = TILE_GROUP",
        ),
        "all rows of tiles are one group": (
            "height = rows_left < TILE_GROUP ? rows_left : TILE_GROUP",
            "height = rows_left",
        ),
        "tiles are walked as though there were one group": (
            "inside = tile % (TILE_GROUP * tiles_n)",
            "inside = tile",
        ),
        "every group is the first": (
            "group = tile / (TILE_GROUP * tiles_n)",
            "group = 0",
        ),
        "tiles down and across are exchanged": (
            "tile / (TILE_GROUP * tiles_n)",
            "tile / (TILE_GROUP * tiles_m)",
        ),
        "the last tile down is lost": ("tiles_m = (M + TILE_M - 1)", "tiles_m = (M - 1)"),
        "the last tile across is lost": (
            "tiles_n = (N + TILE_N - 1)",
            "tiles_n = (N - 1)",
        ),
        "rows begin at the group": ("group * TILE_GROUP + inside % height", "inside % height"),
        "a column of tiles is a row": ("inside / height * TILE_N", "inside % height * TILE_N"),
    },
)
