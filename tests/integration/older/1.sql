-- The tables of Airavata Scheduler; made from models/ by `make schema`, not edited.
-- Load it into an empty database that the user owns:  psql -U airavata -d airavata_scheduler -f db/schema.sql
-- Times (*_at) are milliseconds since the epoch, UTC, by the database's clock.
-- tasks.state: 0 PENDING, 1 QUEUED, 2 LEASED, 3 RUNNING, 4 FINALIZING, 5 COMPLETED, 6 FAILED, 7 CANCELLED, 8 SKIPPED

\set ON_ERROR_STOP on
BEGIN;

CREATE TABLE "schema_version" (
    "version" INTEGER NOT NULL,
    "name" VARCHAR(64) NOT NULL,
    "applied_at" BIGINT NOT NULL,
    PRIMARY KEY ("version")
);

CREATE TABLE "deployment" (
    "name" VARCHAR(64) NOT NULL,
    "value" TEXT NOT NULL,
    "at" BIGINT NOT NULL,
    PRIMARY KEY ("name")
);

CREATE TABLE "users" (
    "id" UUID NOT NULL,
    "name" VARCHAR(255) NOT NULL,
    "email" VARCHAR(320) NOT NULL DEFAULT '',
    "full_name" VARCHAR(255) NOT NULL DEFAULT '',
    "password_hash" VARCHAR(255),
    "is_admin" BOOLEAN NOT NULL DEFAULT FALSE,
    "state" VARCHAR(16) NOT NULL DEFAULT 'active',
    "version" INTEGER NOT NULL DEFAULT 1,
    "created_at" BIGINT NOT NULL,
    "updated_at" BIGINT NOT NULL,
    PRIMARY KEY ("id"),
    CONSTRAINT "users_name" UNIQUE ("name")
);

CREATE TABLE "login_links" (
    "token_hash" VARCHAR(64) NOT NULL,
    "user_id" UUID,
    "purpose" VARCHAR(16) NOT NULL,
    "expires_at" BIGINT NOT NULL,
    "used_at" BIGINT,
    "created_at" BIGINT NOT NULL,
    PRIMARY KEY ("token_hash"),
    CONSTRAINT "login_links_user_id_fk" FOREIGN KEY ("user_id") REFERENCES "users" ("id")
);

CREATE TABLE "logins" (
    "id" UUID NOT NULL,
    "user_id" UUID NOT NULL,
    "refresh_hash" VARCHAR(64) NOT NULL,
    "previous_hash" VARCHAR(64),
    "rotated_at" BIGINT NOT NULL,
    "generation" INTEGER NOT NULL DEFAULT 1,
    "created_at" BIGINT NOT NULL,
    "expires_at" BIGINT NOT NULL,
    "revoked_at" BIGINT,
    "user_agent" TEXT NOT NULL DEFAULT '',
    "address" VARCHAR(64) NOT NULL DEFAULT '',
    PRIMARY KEY ("id"),
    CONSTRAINT "logins_user_id_fk" FOREIGN KEY ("user_id") REFERENCES "users" ("id")
);

CREATE UNIQUE INDEX "logins_refresh_hash" ON "logins" ("refresh_hash");

CREATE INDEX "logins_previous_hash" ON "logins" ("previous_hash");

CREATE INDEX "logins_user_id" ON "logins" ("user_id");

CREATE TABLE "projects" (
    "id" UUID NOT NULL,
    "name" VARCHAR(255) NOT NULL,
    "description" TEXT NOT NULL DEFAULT '',
    "owner_id" UUID NOT NULL,
    "state" VARCHAR(16) NOT NULL DEFAULT 'active',
    "version" INTEGER NOT NULL DEFAULT 1,
    "created_at" BIGINT NOT NULL,
    "updated_at" BIGINT NOT NULL,
    PRIMARY KEY ("id"),
    CONSTRAINT "projects_name" UNIQUE ("name"),
    CONSTRAINT "projects_owner_id_fk" FOREIGN KEY ("owner_id") REFERENCES "users" ("id")
);

CREATE TABLE "project_members" (
    "project_id" UUID NOT NULL,
    "user_id" UUID NOT NULL,
    "role" VARCHAR(16) NOT NULL,
    "created_at" BIGINT NOT NULL,
    PRIMARY KEY ("project_id", "user_id"),
    CONSTRAINT "project_members_project_id_fk" FOREIGN KEY ("project_id") REFERENCES "projects" ("id"),
    CONSTRAINT "project_members_user_id_fk" FOREIGN KEY ("user_id") REFERENCES "users" ("id")
);

CREATE INDEX "project_members_user_id" ON "project_members" ("user_id");

CREATE TABLE "idempotency_keys" (
    "principal_id" VARCHAR(64) NOT NULL,
    "key" VARCHAR(255) NOT NULL,
    "request_hash" VARCHAR(64) NOT NULL,
    "status" INTEGER NOT NULL DEFAULT 0,
    "response" TEXT,
    "created_at" BIGINT NOT NULL,
    PRIMARY KEY ("principal_id", "key")
);

CREATE INDEX "idempotency_keys_created_at" ON "idempotency_keys" ("created_at");

CREATE TABLE "outbox" (
    "id" UUID NOT NULL,
    "kind" VARCHAR(64) NOT NULL,
    "payload" TEXT NOT NULL,
    "created_at" BIGINT NOT NULL,
    "relayed_at" BIGINT,
    PRIMARY KEY ("id")
);

CREATE INDEX "outbox_relayed_at_id" ON "outbox" ("relayed_at", "id");

CREATE TABLE "audit" (
    "id" UUID NOT NULL,
    "at" BIGINT NOT NULL,
    "actor_kind" VARCHAR(16) NOT NULL,
    "actor_id" VARCHAR(64) NOT NULL,
    "action" VARCHAR(64) NOT NULL,
    "object_kind" VARCHAR(32) NOT NULL,
    "object_id" VARCHAR(255) NOT NULL,
    "project_id" UUID,
    "request_id" VARCHAR(128) NOT NULL DEFAULT '',
    "address" VARCHAR(64) NOT NULL DEFAULT '',
    "detail" TEXT NOT NULL,
    PRIMARY KEY ("id")
);

CREATE INDEX "audit_object" ON "audit" ("object_kind", "object_id", "id");

CREATE INDEX "audit_project_id" ON "audit" ("project_id", "id");

CREATE TABLE "compute_resources" (
    "id" UUID NOT NULL,
    "name" VARCHAR(255) NOT NULL,
    "kind" VARCHAR(16) NOT NULL,
    "description" TEXT NOT NULL DEFAULT '',
    "owner_id" UUID NOT NULL,
    "project_id" UUID,
    "limits" TEXT NOT NULL,
    "timers" TEXT NOT NULL,
    "price_per_core_hour" DOUBLE PRECISION NOT NULL DEFAULT 0,
    "state" VARCHAR(16) NOT NULL DEFAULT 'active',
    "version" INTEGER NOT NULL DEFAULT 1,
    "created_at" BIGINT NOT NULL,
    "updated_at" BIGINT NOT NULL,
    PRIMARY KEY ("id"),
    CONSTRAINT "compute_resources_name" UNIQUE ("name"),
    CONSTRAINT "compute_resources_owner_id_fk" FOREIGN KEY ("owner_id") REFERENCES "users" ("id"),
    CONSTRAINT "compute_resources_project_id_fk" FOREIGN KEY ("project_id") REFERENCES "projects" ("id")
);

CREATE TABLE "storage_resources" (
    "id" UUID NOT NULL,
    "name" VARCHAR(255) NOT NULL,
    "kind" VARCHAR(16) NOT NULL,
    "description" TEXT NOT NULL DEFAULT '',
    "owner_id" UUID,
    "project_id" UUID,
    "location" TEXT NOT NULL,
    "is_default" BOOLEAN NOT NULL DEFAULT FALSE,
    "state" VARCHAR(16) NOT NULL DEFAULT 'active',
    "version" INTEGER NOT NULL DEFAULT 1,
    "created_at" BIGINT NOT NULL,
    "updated_at" BIGINT NOT NULL,
    PRIMARY KEY ("id"),
    CONSTRAINT "storage_resources_name" UNIQUE ("name"),
    CONSTRAINT "storage_resources_owner_id_fk" FOREIGN KEY ("owner_id") REFERENCES "users" ("id"),
    CONSTRAINT "storage_resources_project_id_fk" FOREIGN KEY ("project_id") REFERENCES "projects" ("id")
);

CREATE TABLE "agents" (
    "id" UUID NOT NULL,
    "compute_id" UUID NOT NULL,
    "name" VARCHAR(255) NOT NULL,
    "state" VARCHAR(16) NOT NULL DEFAULT 'pending',
    "secret_hash" VARCHAR(64) NOT NULL,
    "next_secret_hash" VARCHAR(64),
    "secret_set_at" BIGINT NOT NULL,
    "token_version" INTEGER NOT NULL DEFAULT 1,
    "approval_code" VARCHAR(32),
    "host" TEXT NOT NULL,
    "version_text" VARCHAR(64) NOT NULL DEFAULT '',
    "capabilities" TEXT NOT NULL,
    "policy" TEXT NOT NULL,
    "session_id" UUID,
    "swaps" INTEGER NOT NULL DEFAULT 0,
    "created_at" BIGINT NOT NULL,
    "enrolled_at" BIGINT,
    "seen_at" BIGINT,
    PRIMARY KEY ("id"),
    CONSTRAINT "agents_compute_id_fk" FOREIGN KEY ("compute_id") REFERENCES "compute_resources" ("id")
);

CREATE UNIQUE INDEX "agents_compute_id_name" ON "agents" ("compute_id", "name");

CREATE TABLE "agent_sessions" (
    "id" UUID NOT NULL,
    "agent_id" UUID NOT NULL,
    "compute_id" UUID NOT NULL,
    "boot_id" VARCHAR(128) NOT NULL DEFAULT '',
    "state_folder_id" VARCHAR(128) NOT NULL DEFAULT '',
    "started_at" BIGINT NOT NULL,
    "heartbeat_at" BIGINT NOT NULL,
    "ended_at" BIGINT,
    "end_reason" VARCHAR(64),
    "last_claim_seq" BIGINT NOT NULL DEFAULT 0,
    "held" INTEGER NOT NULL DEFAULT 0,
    "mode" VARCHAR(16) NOT NULL DEFAULT 'normal',
    "free" TEXT NOT NULL,
    "heartbeat_seq" BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY ("id"),
    CONSTRAINT "agent_sessions_agent_id_fk" FOREIGN KEY ("agent_id") REFERENCES "agents" ("id"),
    CONSTRAINT "agent_sessions_compute_id_fk" FOREIGN KEY ("compute_id") REFERENCES "compute_resources" ("id")
);

CREATE INDEX "agent_sessions_agent_id" ON "agent_sessions" ("agent_id");

CREATE INDEX "agent_sessions_alive" ON "agent_sessions" ("compute_id") WHERE ended_at IS NULL;

CREATE TABLE "claims" (
    "claim_id" VARCHAR(64) NOT NULL,
    "agent_id" UUID NOT NULL,
    "session_id" UUID NOT NULL,
    "granted" INTEGER NOT NULL,
    "created_at" BIGINT NOT NULL,
    PRIMARY KEY ("claim_id")
);

CREATE INDEX "claims_created_at" ON "claims" ("created_at");

CREATE TABLE "enrolment_tokens" (
    "token_hash" VARCHAR(64) NOT NULL,
    "compute_id" UUID NOT NULL,
    "agent_name" VARCHAR(255),
    "created_by" UUID NOT NULL,
    "created_at" BIGINT NOT NULL,
    "expires_at" BIGINT NOT NULL,
    "used_at" BIGINT,
    "agent_id" UUID,
    "secret_hash" VARCHAR(64),
    PRIMARY KEY ("token_hash"),
    CONSTRAINT "enrolment_tokens_compute_id_fk" FOREIGN KEY ("compute_id") REFERENCES "compute_resources" ("id"),
    CONSTRAINT "enrolment_tokens_created_by_fk" FOREIGN KEY ("created_by") REFERENCES "users" ("id")
);

CREATE TABLE "functions" (
    "id" UUID NOT NULL,
    "project_id" UUID NOT NULL,
    "name" VARCHAR(255) NOT NULL,
    "latest_version" INTEGER NOT NULL DEFAULT 1,
    "owner_id" UUID NOT NULL,
    "state" VARCHAR(16) NOT NULL DEFAULT 'active',
    "version" INTEGER NOT NULL DEFAULT 1,
    "created_at" BIGINT NOT NULL,
    "updated_at" BIGINT NOT NULL,
    PRIMARY KEY ("id"),
    CONSTRAINT "functions_project_id_fk" FOREIGN KEY ("project_id") REFERENCES "projects" ("id"),
    CONSTRAINT "functions_owner_id_fk" FOREIGN KEY ("owner_id") REFERENCES "users" ("id")
);

CREATE UNIQUE INDEX "functions_project_name" ON "functions" ("project_id", "name");

CREATE TABLE "function_versions" (
    "id" UUID NOT NULL,
    "function_id" UUID NOT NULL,
    "number" INTEGER NOT NULL,
    "spec" TEXT NOT NULL,
    "created_by" UUID NOT NULL,
    "created_at" BIGINT NOT NULL,
    PRIMARY KEY ("id"),
    CONSTRAINT "function_versions_function_id_fk" FOREIGN KEY ("function_id") REFERENCES "functions" ("id"),
    CONSTRAINT "function_versions_created_by_fk" FOREIGN KEY ("created_by") REFERENCES "users" ("id")
);

CREATE UNIQUE INDEX "function_versions_function_number" ON "function_versions" ("function_id", "number");

CREATE TABLE "experiments" (
    "id" UUID NOT NULL,
    "project_id" UUID NOT NULL,
    "owner_id" UUID NOT NULL,
    "kind" VARCHAR(16) NOT NULL DEFAULT 'experiment',
    "function_version_id" UUID,
    "name" VARCHAR(255) NOT NULL,
    "state" VARCHAR(16) NOT NULL DEFAULT 'CREATED',
    "spec" TEXT NOT NULL,
    "source" TEXT NOT NULL DEFAULT '',
    "plan" TEXT,
    "total" BIGINT NOT NULL DEFAULT 0,
    "on_failure" VARCHAR(16) NOT NULL DEFAULT 'continue',
    "compute" TEXT NOT NULL,
    "storage_id" UUID,
    "priority" SMALLINT NOT NULL DEFAULT 0,
    "derived_from" UUID,
    "cancel_requested_at" BIGINT,
    "error" TEXT,
    "version" INTEGER NOT NULL DEFAULT 1,
    "created_at" BIGINT NOT NULL,
    "submitted_at" BIGINT,
    "started_at" BIGINT,
    "finished_at" BIGINT,
    "updated_at" BIGINT NOT NULL,
    PRIMARY KEY ("id"),
    CONSTRAINT "experiments_project_id_fk" FOREIGN KEY ("project_id") REFERENCES "projects" ("id"),
    CONSTRAINT "experiments_owner_id_fk" FOREIGN KEY ("owner_id") REFERENCES "users" ("id"),
    CONSTRAINT "experiments_function_version_id_fk" FOREIGN KEY ("function_version_id") REFERENCES "function_versions" ("id"),
    CONSTRAINT "experiments_storage_id_fk" FOREIGN KEY ("storage_id") REFERENCES "storage_resources" ("id")
);

CREATE INDEX "experiments_project_created" ON "experiments" ("project_id", "created_at");

CREATE UNIQUE INDEX "experiments_function_owner" ON "experiments" ("function_version_id", "owner_id");

CREATE INDEX "experiments_state" ON "experiments" ("state", "id");

CREATE TABLE "nodes" (
    "id" UUID NOT NULL,
    "experiment_id" UUID NOT NULL,
    "name" VARCHAR(255) NOT NULL,
    "position" INTEGER NOT NULL,
    "state" VARCHAR(16) NOT NULL DEFAULT 'WAITING',
    "spec" TEXT NOT NULL,
    "total" BIGINT NOT NULL DEFAULT 0,
    "next_index" BIGINT NOT NULL DEFAULT 0,
    "selection" TEXT,
    "generation" SMALLINT NOT NULL DEFAULT 0,
    "pending" BIGINT NOT NULL DEFAULT 0,
    "queued" BIGINT NOT NULL DEFAULT 0,
    "leased" BIGINT NOT NULL DEFAULT 0,
    "running" BIGINT NOT NULL DEFAULT 0,
    "finalizing" BIGINT NOT NULL DEFAULT 0,
    "completed" BIGINT NOT NULL DEFAULT 0,
    "failed" BIGINT NOT NULL DEFAULT 0,
    "cancelled" BIGINT NOT NULL DEFAULT 0,
    "skipped" BIGINT NOT NULL DEFAULT 0,
    "opened_at" BIGINT,
    "finished_at" BIGINT,
    PRIMARY KEY ("id"),
    CONSTRAINT "nodes_experiment_id_fk" FOREIGN KEY ("experiment_id") REFERENCES "experiments" ("id")
);

CREATE UNIQUE INDEX "nodes_experiment_name" ON "nodes" ("experiment_id", "name");

CREATE TABLE "tasks" (
    "id" UUID NOT NULL,
    "experiment_id" UUID NOT NULL,
    "node_id" UUID NOT NULL,
    "idx" BIGINT NOT NULL,
    "generation" SMALLINT NOT NULL DEFAULT 0,
    "compute_id" UUID,
    "state" SMALLINT NOT NULL DEFAULT 0,
    "priority" SMALLINT NOT NULL DEFAULT 0,
    "available_at" BIGINT NOT NULL DEFAULT 0,
    "cpu" SMALLINT NOT NULL DEFAULT 1,
    "ram_mb" INTEGER NOT NULL DEFAULT 0,
    "gpu" SMALLINT NOT NULL DEFAULT 0,
    "attempt" SMALLINT NOT NULL DEFAULT 0,
    "failures" SMALLINT NOT NULL DEFAULT 0,
    "infra_failures" SMALLINT NOT NULL DEFAULT 0,
    "refusals" SMALLINT NOT NULL DEFAULT 0,
    "lease_id" VARCHAR(32),
    "agent_id" UUID,
    "session_id" UUID,
    "claim_id" VARCHAR(64),
    "gate_open" BOOLEAN NOT NULL DEFAULT FALSE,
    "pinned" BOOLEAN NOT NULL DEFAULT FALSE,
    "leased_at" BIGINT,
    "started_at" BIGINT,
    "finished_at" BIGINT,
    "cancel_requested_at" BIGINT,
    "arguments" TEXT,
    "reason" TEXT,
    "created_at" BIGINT NOT NULL,
    PRIMARY KEY ("id")
);

CREATE INDEX "tasks_claim" ON "tasks" ("compute_id", "priority" DESC, "available_at") WHERE state = 1;

CREATE INDEX "tasks_session_state" ON "tasks" ("session_id", "state") WHERE session_id IS NOT NULL;

CREATE INDEX "tasks_experiment_state" ON "tasks" ("experiment_id", "state", "id");

CREATE UNIQUE INDEX "tasks_node_idx_generation" ON "tasks" ("node_id", "idx", "generation");

CREATE TABLE "attempts" (
    "lease_id" VARCHAR(32) NOT NULL,
    "task_id" UUID NOT NULL,
    "experiment_id" UUID NOT NULL,
    "number" SMALLINT NOT NULL,
    "agent_id" UUID,
    "session_id" UUID,
    "compute_id" UUID,
    "outcome" VARCHAR(16) NOT NULL,
    "failure_kind" VARCHAR(16),
    "failure_code" VARCHAR(64),
    "message" TEXT,
    "exit_code" INTEGER,
    "signal" INTEGER,
    "leased_at" BIGINT,
    "started_at" BIGINT,
    "finished_at" BIGINT,
    "duration_ms" BIGINT,
    "cpu_ms" BIGINT,
    "max_rss_kb" BIGINT,
    "result" TEXT,
    "report_digest" VARCHAR(64),
    PRIMARY KEY ("lease_id")
);

CREATE INDEX "attempts_task_id" ON "attempts" ("task_id");

CREATE TABLE "artifacts" (
    "id" UUID NOT NULL,
    "experiment_id" UUID NOT NULL,
    "node_id" UUID NOT NULL,
    "idx" BIGINT NOT NULL,
    "task_id" UUID NOT NULL,
    "lease_id" VARCHAR(32) NOT NULL,
    "attempt" SMALLINT NOT NULL,
    "output" VARCHAR(255) NOT NULL,
    "path" TEXT NOT NULL,
    "size" BIGINT NOT NULL,
    "sha256" VARCHAR(64) NOT NULL,
    "storage_id" UUID NOT NULL,
    "storage_key" TEXT NOT NULL,
    "state" VARCHAR(16) NOT NULL DEFAULT 'staged',
    "created_at" BIGINT NOT NULL,
    "published_at" BIGINT,
    PRIMARY KEY ("id")
);

CREATE INDEX "artifacts_task_id" ON "artifacts" ("task_id");

CREATE INDEX "artifacts_experiment_state" ON "artifacts" ("experiment_id", "state", "id");

CREATE INDEX "artifacts_node_idx" ON "artifacts" ("node_id", "idx");

CREATE TABLE "logs" (
    "lease_id" VARCHAR(32) NOT NULL,
    "stream" VARCHAR(16) NOT NULL,
    "task_id" UUID NOT NULL,
    "size" BIGINT NOT NULL DEFAULT 0,
    "storage_key" TEXT,
    "inline" BYTEA,
    "truncated" BOOLEAN NOT NULL DEFAULT FALSE,
    PRIMARY KEY ("lease_id", "stream")
);

CREATE INDEX "logs_task_id" ON "logs" ("task_id");

CREATE TABLE "blobs" (
    "project_id" UUID NOT NULL,
    "sha256" VARCHAR(64) NOT NULL,
    "size" BIGINT NOT NULL,
    "storage_id" UUID NOT NULL,
    "storage_key" TEXT NOT NULL,
    "created_by" UUID,
    "created_at" BIGINT NOT NULL,
    PRIMARY KEY ("project_id", "sha256")
);

CREATE TABLE "events" (
    "id" UUID NOT NULL,
    "experiment_id" UUID NOT NULL,
    "at" BIGINT NOT NULL,
    "kind" VARCHAR(64) NOT NULL,
    "detail" TEXT NOT NULL,
    PRIMARY KEY ("id")
);

CREATE INDEX "events_experiment_id" ON "events" ("experiment_id", "id");

CREATE TABLE "task_stats" (
    "compute_id" UUID NOT NULL,
    "outcome" VARCHAR(16) NOT NULL,
    "le_ms" BIGINT NOT NULL,
    "count" BIGINT NOT NULL DEFAULT 0,
    "sum_ms" BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY ("compute_id", "outcome", "le_ms")
);

INSERT INTO schema_version (version, name, applied_at) VALUES (1, 'initial', CAST(FLOOR(EXTRACT(EPOCH FROM statement_timestamp()) * 1000) AS BIGINT));

COMMIT;
