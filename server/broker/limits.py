"""Every limit of the server with its default. docs/limits.md says why each one is there."""

from dataclasses import dataclass

MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What one worker allows. Each field is enforced before anything is allocated for it."""

    frame_bytes: int = 8 * MEBIBYTE
    message_bytes: int = 4 * MEBIBYTE
    batch_messages: int = 65536
    take_messages: int = 4096
    take_bytes: int = 4 * MEBIBYTE
    confirm_receipts: int = 65536
    wait_ms: int = 600_000
    lease_ms: int = 12 * 3600 * 1000
    connections: int = 16384
    in_flight: int = 16384
    parked: int = 64
    cmq_parked: int = 256
    read_bytes: int = 256 * 1024
    write_bytes: int = 1 * MEBIBYTE
    kept_bytes: int = 1024 * MEBIBYTE
    handshake_s: float = 10.0
    idle_s: float = 900.0
    stall_s: float = 30.0
    drain_s: float = 10.0
    head_bytes: int = 16 * 1024
    url_bytes: int = 8 * 1024
    headers: int = 64
    body_bytes: int = 4 * MEBIBYTE
    chunk_overhead_bytes: int = 16 * 1024
    http_idle_s: float = 75.0
    request_s: float = 30.0
    route_names: int = 8192
    metric_groups: int = 1000
    name_characters: int = 128
    quotas: int = 2048
    partitions: int = 256
    subscriptions: int = 4096
    temporary_ms: int = 24 * 3600 * 1000
    delay_ms: int = 3653 * 24 * 3600 * 1000
    half_ms: int = 3 * 24 * 3600 * 1000
    checks: int = 255
    check_ms: int = 12 * 3600 * 1000
    atomic_messages: int = 1024
    producer_groups: int = 64
    schedules: int = 1024
