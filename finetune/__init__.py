"""Fine-tune: shards in, checkpoints and a held-out curve out."""
