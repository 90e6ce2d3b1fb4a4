"""The tables of the statements. The migrations create them; a test compares the two."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Double,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)

metadata = MetaData()

users = Table(
    "users",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("is_verified_seller", Boolean, nullable=False),
)

items = Table(
    "items",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("seller_id", BigInteger, nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("category", Integer, nullable=False),
    Column("images_qty", Integer, nullable=False),
)

moderation_results = Table(
    "moderation_results",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("item_id", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("is_violation", Boolean),
    Column("probability", Double),
    Column("error_message", Text),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("processed_at", DateTime(timezone=True)),
    Column("message_id", Text, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("publish_after", DateTime(timezone=True)),
    Column("client_id", BigInteger),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("key", Text, primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("task_ids", ARRAY(BigInteger), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
)

clients = Table(
    "clients",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("name", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("client_id", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("rate_requests", Integer),
    Column("rate_window_s", Integer),
    Column("quota_per_day", BigInteger),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("created_by", Text, nullable=False),
    Column("expires_at", DateTime(timezone=True)),
    Column("revoked_at", DateTime(timezone=True)),
    Column("revoked_by", Text),
    Column("reason", Text),
)

api_key_usage = Table(
    "api_key_usage",
    metadata,
    Column("key_id", Text, primary_key=True),
    Column("day", Date, primary_key=True),
    Column("used", BigInteger, nullable=False),
    Column("granted", BigInteger, nullable=False),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("action", Text, nullable=False),
    Column("key_id", Text),
    Column("client_id", BigInteger),
    Column("done_by", Text),
    Column("task_ids", ARRAY(BigInteger)),
    Column("item_ids", ARRAY(BigInteger)),
    Column("subject", Text),
    Column("reason", Text),
)

judgements = Table(
    "judgements",
    metadata,
    Column("message_id", Text, primary_key=True),
    Column("generation", Integer, nullable=False),
    Column("model_version", Text, nullable=False),
    Column("threshold", Double, nullable=False),
    Column("approve_below", Double, nullable=False),
    Column("reject_from", Double, nullable=False),
    Column("decision", Text, nullable=False),
    Column("shadow_version", Text),
    Column("shadow_is_violation", Boolean),
    Column("shadow_probability", Double),
    Column("shadow_decision", Text),
    Column("ad_hash", Text),
)

ad_versions = Table(
    "ad_versions",
    metadata,
    Column("item_id", BigInteger, primary_key=True),
    Column("digest", Text, primary_key=True),
    Column("seller_id", BigInteger, nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("category", Integer, nullable=False),
    Column("images_qty", Integer, nullable=False),
    Column("replaced_at", DateTime(timezone=True), nullable=False),
)

verification_changes = Table(
    "verification_changes",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("seller_id", BigInteger, nullable=False),
    Column("changed_at", DateTime(timezone=True), nullable=False),
    Column("noticed_at", DateTime(timezone=True)),
    Column("done_item_id", BigInteger, nullable=False),
    Column("due_at", DateTime(timezone=True), nullable=False),
)

submission_history = Table(
    "submission_history",
    metadata,
    Column("task_id", BigInteger, primary_key=True),
    Column("generation", Integer, primary_key=True),
    Column("status", Text, nullable=False),
    Column("is_violation", Boolean),
    Column("probability", Double),
    Column("error_message", Text),
    Column("processed_at", DateTime(timezone=True)),
    Column("replaced_at", DateTime(timezone=True), nullable=False),
    Column("redriven_by", Text),
    Column("reason", Text),
)
