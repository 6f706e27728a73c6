"""From a problem to a plan: pure arithmetic, without array libraries and backends."""
