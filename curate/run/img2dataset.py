"""Settings of img2dataset (1.47.0, all of its ``download``): what to type for them in a curation that fetches.

README.md has the same as a table, "If you come from img2dataset".
"""

from __future__ import annotations

from curate.run.foreign_row import Row

_AS_THEY_COME = Row(
    "",
    why="pictures are kept as they come, and a training crops and resizes them (model.resolution, buckets)",
)
_ONE_PROCESS = Row(
    "",
    why="one process fetches; n machines take a part each, with a folder of its own: part=0/8 "
    "dataset.images_dir=FOLDER-0-of-8 run.name=NAME-0-of-8",
)
_ALL_COLUMNS = Row("", why="every column of the table is kept")

ROWS = {
    # the table
    "url_list": Row("dataset=table dataset.path={}", "urls.parquet"),
    "input_format": Row("", why="the file's name says it, or dataset.file_type=csv|tsv|jsonl|parquet"),
    "url_col": Row("dataset.url_column={}", "url"),
    "caption_col": Row("dataset.caption_columns=[{}]", "text"),
    "bbox_col": Row("", why="faces are not blurred"),
    "save_additional_columns": _ALL_COLUMNS,
    # what is written
    "output_folder": Row("dataset.images_dir={}", "FOLDER", "pictures that are fetched go there"),
    "output_format": Row("", why="shards are WebDataset tars in img2dataset's layout"),
    "number_sample_per_shard": Row("fetch.rows_per_shard={}", "10000"),
    "oom_shard_count": Row("", why="the names of shards have as many digits as they need"),
    "extract_exif": Row("", why="a picture's bytes are kept, and its EXIF with them"),
    "compute_hash": Row("", why="the ledger always has the SHA-256 of each picture"),
    "verify_hash": Row(
        "fetch.verify={}", "true", "columns md5 and sha256 of the table count, and fetch.hashes=FILE"
    ),
    # pictures
    "image_size": _AS_THEY_COME,
    "resize_mode": _AS_THEY_COME,
    "resize_only_if_bigger": _AS_THEY_COME,
    "upscale_interpolation": _AS_THEY_COME,
    "downscale_interpolation": _AS_THEY_COME,
    "encode_format": _AS_THEY_COME,
    "skip_reencode": _AS_THEY_COME,
    "disable_all_reencoding": _AS_THEY_COME,
    "encode_quality": Row(
        "shards.jpeg_quality={}", "95", "of pictures that other programs would not see upright and in sRGB"
    ),
    "min_image_size": Row("filters.image.min_side_px={}", "200"),
    "max_image_area": Row("filters.image.max_pixels={}", "1000000"),
    "max_aspect_ratio": Row("filters.image.max_aspect={}", "3.0"),
    # fetching
    "thread_count": Row("fetch.connections={}", "64"),
    "processes_count": _ONE_PROCESS,
    "distributor": _ONE_PROCESS,
    "subjob_size": _ONE_PROCESS,
    "timeout": Row("fetch.timeout_s={}", "30"),
    "retries": Row("fetch.retries={}", "2", "of failures that may pass, with pauses"),
    "max_shard_retry": Row(
        "", why="python -m curate.retry RUN asks again for what failed and may pass"
    ),
    "incremental_mode": Row(
        "", why="the same command again goes on, and asks for nothing that it has"
    ),
    "user_agent_token": Row(
        "fetch.contact=you@example.org", why="the User-Agent says whom to write to"
    ),
    "disallowed_header_directives": Row(
        "", why="X-Robots-Tag and tdm-reservation are always obeyed"
    ),
    "ignore_ssl_certificate": Row("", why="TLS is always verified"),
    # the log
    "enable_wandb": Row("tracker=wandb"),
    "wandb_project": Row("tracker=wandb", why="W&B reads the environment variable WANDB_PROJECT"),
}  # fmt: skip
