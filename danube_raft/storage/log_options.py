"""How RocksDB is set up for a log: written at its end, read at its end, forgotten from its beginning."""

from __future__ import annotations

import rocksdict

WRITE_BUFFER_BYTES = 8 << 20
MAX_TOTAL_WAL_BYTES = 16 << 20
SST_BYTES = 8 << 20
LEVEL_0_FILES = 2
LEVEL_1_BYTES = 16 << 20
"""What was purged lies on the disk until a compaction of level 0 meets the tombstone and drops the files that it covers
whole. With files this small and levels this low that is some 16 MiB of log later, where RocksDB's own settings took
hundreds; and since entries come in order, most files are moved down without being written again."""
KEEP_LOG_FILES = 5


def log_options() -> rocksdict.Options:
    """For opening or making one."""
    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(True)
    options.create_missing_column_families(True)
    # The default mode would drop everything behind a damaged WAL record without a word.
    options.set_wal_recovery_mode(rocksdict.DBRecoveryMode.tolerate_corrupted_tail_records())
    options.set_max_total_wal_size(MAX_TOTAL_WAL_BYTES)
    options.set_write_buffer_size(WRITE_BUFFER_BYTES)
    options.set_target_file_size_base(SST_BYTES)
    options.set_level_zero_file_num_compaction_trigger(LEVEL_0_FILES)
    options.set_max_bytes_for_level_base(LEVEL_1_BYTES)
    options.set_max_background_jobs(2)
    options.set_keep_log_file_num(KEEP_LOG_FILES)
    options.set_stats_dump_period_sec(0)
    options.set_stats_persist_period_sec(0)
    # Entries are purged within minutes; compressing them costs more than the space is worth.
    options.set_compression_type(rocksdict.DBCompressionType.none())
    return options
