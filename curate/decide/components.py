"""Connected components of a graph whose edges are on the disk; nodes without an edge cost nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from curate.decide import edges, neighbours
from curate.decide.number_files import NumberFile
from curate.run.database import blocks, named

if TYPE_CHECKING:
    import duckdb

_BLOCK = 1 << 20  # nodes that are written at a time


def create_components(
    connection: duckdb.DuckDBPyConnection, table: str, links: str, folder: Path
) -> None:
    """Create ``table(node, label)``: for each node but the least of its component, the least one.

    Memory holds some 24 bytes for each node that has an edge.

    Args:
        connection: where ``links`` can be asked for.
        table: its name.
        links: a query with the columns ``one`` and ``other``, BIGINT, each pair any number of times.
        folder: for files, which stay there.
    """
    kept = named(f"{table}-links")
    connection.sql(f"CREATE TABLE {kept} AS SELECT one, other FROM ({links})")
    of_nodes = f"SELECT one AS node FROM {kept} UNION SELECT other FROM {kept} ORDER BY node"
    written = NumberFile(folder / f"{table}-nodes.bin", np.int64)
    for block in blocks(connection, of_nodes):
        written.append(block["node"].to_numpy())
    nodes = written.read()
    written.path.unlink()
    places = (
        (
            np.searchsorted(nodes, block["one"].to_numpy()),
            np.searchsorted(nodes, block["other"].to_numpy()),
        )
        for block in blocks(connection, f"SELECT one, other FROM {kept}")
    )
    least = neighbours.components(len(nodes), places)
    connection.sql(f"DROP TABLE {kept}")
    labelled = folder / f"{table}.parquet"
    slices = (slice(start, start + _BLOCK) for start in range(0, len(nodes), _BLOCK))
    told = ((nodes[at], nodes[least[at]]) for at in slices)
    edges.write(labelled, ((node[node != of], of[node != of]) for node, of in told))
    connection.sql(
        f"CREATE TABLE {named(table)} AS SELECT one AS node, other AS label "
        f"FROM ({edges.of_files([labelled])})"
    )
