-- The tables of Airavata Scheduler; made from models/ by `make schema`, not edited.
-- Load it into an empty database that the user owns:  mysql -u airavata -p airavata_scheduler < db/schema.mysql.sql
-- Times (*_at) are milliseconds since the epoch, UTC, by the database's clock.
-- tasks.state: 0 PENDING, 1 QUEUED, 2 LEASED, 3 RUNNING, 4 FINALIZING, 5 COMPLETED, 6 FAILED, 7 CANCELLED, 8 SKIPPED

CREATE TABLE `schema_version` (
    `version` INTEGER NOT NULL,
    `name` VARCHAR(64) NOT NULL,
    `applied_at` BIGINT NOT NULL,
    PRIMARY KEY (`version`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 /*!80017 COLLATE=utf8mb4_0900_bin */ /*M!100203 COLLATE=utf8mb4_nopad_bin */;

CREATE TABLE `deployment` (
    `name` VARCHAR(64) NOT NULL,
    `value` LONGTEXT NOT NULL,
    `at` BIGINT NOT NULL,
    PRIMARY KEY (`name`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 /*!80017 COLLATE=utf8mb4_0900_bin */ /*M!100203 COLLATE=utf8mb4_nopad_bin */;

CREATE TABLE `users` (
    `id` CHAR(36) NOT NULL,
    `name` VARCHAR(255) NOT NULL,
    `email` VARCHAR(320) NOT NULL DEFAULT '',
    `full_name` VARCHAR(255) NOT NULL DEFAULT '',
    `password_hash` VARCHAR(255),
    `is_admin` BOOLEAN NOT NULL DEFAULT FALSE,
    `state` VARCHAR(16) NOT NULL DEFAULT 'active',
    `version` INTEGER NOT NULL DEFAULT 1,
    `created_at` BIGINT NOT NULL,
    `updated_at` BIGINT NOT NULL,
    PRIMARY KEY (`id`),
    CONSTRAINT `users_name` UNIQUE (`name`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 /*!80017 COLLATE=utf8mb4_0900_bin */ /*M!100203 COLLATE=utf8mb4_nopad_bin */;

CREATE TABLE `login_links` (
    `token_hash` VARCHAR(64) NOT NULL,
    `user_id` CHAR(36),
    `purpose` VARCHAR(16) NOT NULL,
    `expires_at` BIGINT NOT NULL,
    `used_at` BIGINT,
    `created_at` BIGINT NOT NULL,
    PRIMARY KEY (`token_hash`),
    CONSTRAINT `login_links_user_id_fk` FOREIGN KEY (`user_id`) REFERENCES `users` (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 /*!80017 COLLATE=utf8mb4_0900_bin */ /*M!100203 COLLATE=utf8mb4_nopad_bin */;

CREATE TABLE `logins` (
    `id` CHAR(36) NOT NULL,
    `user_id` CHAR(36) NOT NULL,
    `refresh_hash` VARCHAR(64) NOT NULL,
    `previous_hash` VARCHAR(64),
    `rotated_at` BIGINT NOT NULL,
    `generation` INTEGER NOT NULL DEFAULT 1,
    `created_at` BIGINT NOT NULL,
    `expires_at` BIGINT NOT NULL,
    `revoked_at` BIGINT,
    `user_agent` LONGTEXT NOT NULL,
    `address` VARCHAR(64) NOT NULL DEFAULT '',
    PRIMARY KEY (`id`),
    CONSTRAINT `logins_user_id_fk` FOREIGN KEY (`user_id`) REFERENCES `users` (`id`),
    UNIQUE INDEX `logins_refresh_hash` (`refresh_hash`),
    INDEX `logins_previous_hash` (`previous_hash`),
    INDEX `logins_user_id` (`user_id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 /*!80017 COLLATE=utf8mb4_0900_bin */ /*M!100203 COLLATE=utf8mb4_nopad_bin */;

CREATE TABLE `projects` (
    `id` CHAR(36) NOT NULL,
    `name` VARCHAR(255) NOT NULL,
    `description` LONGTEXT NOT NULL,
    `owner_id` CHAR(36) NOT NULL,
    `state` VARCHAR(16) NOT NULL DEFAULT 'active',
    `version` INTEGER NOT NULL DEFAULT 1,
    `created_at` BIGINT NOT NULL,
    `updated_at` BIGINT NOT NULL,
    PRIMARY KEY (`id`),
    CONSTRAINT `projects_name` UNIQUE (`name`),
    CONSTRAINT `projects_owner_id_fk` FOREIGN KEY (`owner_id`) REFERENCES `users` (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 /*!80017 COLLATE=utf8mb4_0900_bin */ /*M!100203 COLLATE=utf8mb4_nopad_bin */;

CREATE TABLE `project_members` (
    `project_id` CHAR(36) NOT NULL,
    `user_id` CHAR(36) NOT NULL,
    `role` VARCHAR(16) NOT NULL,
    `created_at` BIGINT NOT NULL,
    PRIMARY KEY (`project_id`, `user_id`),
    CONSTRAINT `project_members_project_id_fk` FOREIGN KEY (`project_id`) REFERENCES `projects` (`id`),
    CONSTRAINT `project_members_user_id_fk` FOREIGN KEY (`user_id`) REFERENCES `users` (`id`),
    INDEX `project_members_user_id` (`user_id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 /*!80017 COLLATE=utf8mb4_0900_bin */ /*M!100203 COLLATE=utf8mb4_nopad_bin */;

CREATE TABLE `idempotency_keys` (
    `principal_id` VARCHAR(64) NOT NULL,
    `key` VARCHAR(255) NOT NULL,
    `request_hash` VARCHAR(64) NOT NULL,
    `status` INTEGER NOT NULL DEFAULT 0,
    `response` LONGTEXT,
    `created_at` BIGINT NOT NULL,
    PRIMARY KEY (`principal_id`, `key`),
    INDEX `idempotency_keys_created_at` (`created_at`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 /*!80017 COLLATE=utf8mb4_0900_bin */ /*M!100203 COLLATE=utf8mb4_nopad_bin */;

CREATE TABLE `outbox` (
    `id` CHAR(36) NOT NULL,
    `kind` VARCHAR(64) NOT NULL,
    `payload` LONGTEXT NOT NULL,
    `created_at` BIGINT NOT NULL,
    `relayed_at` BIGINT,
    PRIMARY KEY (`id`),
    INDEX `outbox_relayed_at_id` (`relayed_at`, `id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 /*!80017 COLLATE=utf8mb4_0900_bin */ /*M!100203 COLLATE=utf8mb4_nopad_bin */;

CREATE TABLE `audit` (
    `id` CHAR(36) NOT NULL,
    `at` BIGINT NOT NULL,
    `actor_kind` VARCHAR(16) NOT NULL,
    `actor_id` VARCHAR(64) NOT NULL,
    `action` VARCHAR(64) NOT NULL,
    `object_kind` VARCHAR(32) NOT NULL,
    `object_id` VARCHAR(255) NOT NULL,
    `project_id` CHAR(36),
    `request_id` VARCHAR(128) NOT NULL DEFAULT '',
    `address` VARCHAR(64) NOT NULL DEFAULT '',
    `detail` LONGTEXT NOT NULL,
    PRIMARY KEY (`id`),
    INDEX `audit_object` (`object_kind`, `object_id`, `id`),
    INDEX `audit_project_id` (`project_id`, `id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 /*!80017 COLLATE=utf8mb4_0900_bin */ /*M!100203 COLLATE=utf8mb4_nopad_bin */;

CREATE TABLE `compute_resources` (
    `id` CHAR(36) NOT NULL,
    `name` VARCHAR(255) NOT NULL,
    `kind` VARCHAR(16) NOT NULL,
    `description` LONGTEXT NOT NULL,
    `owner_id` CHAR(36) NOT NULL,
    `project_id` CHAR(36),
    `limits` LONGTEXT NOT NULL,
    `timers` LONGTEXT NOT NULL,
    `price_per_core_hour` DOUBLE NOT NULL DEFAULT 0,
    `state` VARCHAR(16) NOT NULL DEFAULT 'active',
    `version` INTEGER NOT NULL DEFAULT 1,
    `created_at` BIGINT NOT NULL,
    `updated_at` BIGINT NOT NULL,
    PRIMARY KEY (`id`),
    CONSTRAINT `compute_resources_name` UNIQUE (`name`),
    CONSTRAINT `compute_resources_owner_id_fk` FOREIGN KEY (`owner_id`) REFERENCES `users` (`id`),
    CONSTRAINT `compute_resources_project_id_fk` FOREIGN KEY (`project_id`) REFERENCES `projects` (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 /*!80017 COLLATE=utf8mb4_0900_bin */ /*M!100203 COLLATE=utf8mb4_nopad_bin */;

CREATE TABLE `storage_resources` (
    `id` CHAR(36) NOT NULL,
    `name` VARCHAR(255) NOT NULL,
    `kind` VARCHAR(16) NOT NULL,
    `description` LONGTEXT NOT NULL,
    `owner_id` CHAR(36),
    `project_id` CHAR(36),
    `location` LONGTEXT NOT NULL,
    `is_default` BOOLEAN NOT NULL DEFAULT FALSE,
    `state` VARCHAR(16) NOT NULL DEFAULT 'active',
    `version` INTEGER NOT NULL DEFAULT 1,
    `created_at` BIGINT NOT NULL,
    `updated_at` BIGINT NOT NULL,
    PRIMARY KEY (`id`),
    CONSTRAINT `storage_resources_name` UNIQUE (`name`),
    CONSTRAINT `storage_resources_owner_id_fk` FOREIGN KEY (`owner_id`) REFERENCES `users` (`id`),
    CONSTRAINT `storage_resources_project_id_fk` FOREIGN KEY (`project_id`) REFERENCES `projects` (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 /*!80017 COLLATE=utf8mb4_0900_bin */ /*M!100203 COLLATE=utf8mb4_nopad_bin */;

CREATE TABLE `agents` (
    `id` CHAR(36) NOT NULL,
    `compute_id` CHAR(36) NOT NULL,
    `name` VARCHAR(255) NOT NULL,
    `state` VARCHAR(16) NOT NULL DEFAULT 'pending',
    `secret_hash` VARCHAR(64) NOT NULL,
    `next_secret_hash` VARCHAR(64),
    `secret_set_at` BIGINT NOT NULL,
    `token_version` INTEGER NOT NULL DEFAULT 1,
    `approval_code` VARCHAR(32),
    `host` LONGTEXT NOT NULL,
    `version_text` VARCHAR(64) NOT NULL DEFAULT '',
    `capabilities` LONGTEXT NOT NULL,
    `policy` LONGTEXT NOT NULL,
    `session_id` CHAR(36),
    `swaps` INTEGER NOT NULL DEFAULT 0,
    `created_at` BIGINT NOT NULL,
    `enrolled_at` BIGINT,
    `seen_at` BIGINT,
    PRIMARY KEY (`id`),
    CONSTRAINT `agents_compute_id_fk` FOREIGN KEY (`compute_id`) REFERENCES `compute_resources` (`id`),
    UNIQUE INDEX `agents_compute_id_name` (`compute_id`, `name`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 /*!80017 COLLATE=utf8mb4_0900_bin */ /*M!100203 COLLATE=utf8mb4_nopad_bin */;

CREATE TABLE `agent_sessions` (
    `id` CHAR(36) NOT NULL,
    `agent_id` CHAR(36) NOT NULL,
    `compute_id` CHAR(36) NOT NULL,
    `boot_id` VARCHAR(128) NOT NULL DEFAULT '',
    `state_folder_id` VARCHAR(128) NOT NULL DEFAULT '',
    `started_at` BIGINT NOT NULL,
    `heartbeat_at` BIGINT NOT NULL,
    `ended_at` BIGINT,
    `end_reason` VARCHAR(64),
    `last_claim_seq` BIGINT NOT NULL DEFAULT 0,
    `held` INTEGER NOT NULL DEFAULT 0,
    `mode` VARCHAR(16) NOT NULL DEFAULT 'normal',
    `free` LONGTEXT NOT NULL,
    `heartbeat_seq` BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (`id`),
    CONSTRAINT `agent_sessions_agent_id_fk` FOREIGN KEY (`agent_id`) REFERENCES `agents` (`id`),
    CONSTRAINT `agent_sessions_compute_id_fk` FOREIGN KEY (`compute_id`) REFERENCES `compute_resources` (`id`),
    INDEX `agent_sessions_agent_id` (`agent_id`),
    INDEX `agent_sessions_alive` (`ended_at`, `compute_id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 /*!80017 COLLATE=utf8mb4_0900_bin */ /*M!100203 COLLATE=utf8mb4_nopad_bin */;

CREATE TABLE `claims` (
    `claim_id` VARCHAR(64) NOT NULL,
    `agent_id` CHAR(36) NOT NULL,
    `session_id` CHAR(36) NOT NULL,
    `granted` INTEGER NOT NULL,
    `created_at` BIGINT NOT NULL,
    PRIMARY KEY (`claim_id`),
    INDEX `claims_created_at` (`created_at`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 /*!80017 COLLATE=utf8mb4_0900_bin */ /*M!100203 COLLATE=utf8mb4_nopad_bin */;

CREATE TABLE `enrolment_tokens` (
    `token_hash` VARCHAR(64) NOT NULL,
    `compute_id` CHAR(36) NOT NULL,
    `agent_name` VARCHAR(255),
    `created_by` CHAR(36) NOT NULL,
    `created_at` BIGINT NOT NULL,
    `expires_at` BIGINT NOT NULL,
    `used_at` BIGINT,
    `agent_id` CHAR(36),
    `secret_hash` VARCHAR(64),
    PRIMARY KEY (`token_hash`),
    CONSTRAINT `enrolment_tokens_compute_id_fk` FOREIGN KEY (`compute_id`) REFERENCES `compute_resources` (`id`),
    CONSTRAINT `enrolment_tokens_created_by_fk` FOREIGN KEY (`created_by`) REFERENCES `users` (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 /*!80017 COLLATE=utf8mb4_0900_bin */ /*M!100203 COLLATE=utf8mb4_nopad_bin */;

CREATE TABLE `functions` (
    `id` CHAR(36) NOT NULL,
    `project_id` CHAR(36) NOT NULL,
    `name` VARCHAR(255) NOT NULL,
    `latest_version` INTEGER NOT NULL DEFAULT 1,
    `owner_id` CHAR(36) NOT NULL,
    `state` VARCHAR(16) NOT NULL DEFAULT 'active',
    `version` INTEGER NOT NULL DEFAULT 1,
    `created_at` BIGINT NOT NULL,
    `updated_at` BIGINT NOT NULL,
    PRIMARY KEY (`id`),
    CONSTRAINT `functions_project_id_fk` FOREIGN KEY (`project_id`) REFERENCES `projects` (`id`),
    CONSTRAINT `functions_owner_id_fk` FOREIGN KEY (`owner_id`) REFERENCES `users` (`id`),
    UNIQUE INDEX `functions_project_name` (`project_id`, `name`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 /*!80017 COLLATE=utf8mb4_0900_bin */ /*M!100203 COLLATE=utf8mb4_nopad_bin */;

CREATE TABLE `function_versions` (
    `id` CHAR(36) NOT NULL,
    `function_id` CHAR(36) NOT NULL,
    `number` INTEGER NOT NULL,
    `spec` LONGTEXT NOT NULL,
    `created_by` CHAR(36) NOT NULL,
    `created_at` BIGINT NOT NULL,
    PRIMARY KEY (`id`),
    CONSTRAINT `function_versions_function_id_fk` FOREIGN KEY (`function_id`) REFERENCES `functions` (`id`),
    CONSTRAINT `function_versions_created_by_fk` FOREIGN KEY (`created_by`) REFERENCES `users` (`id`),
    UNIQUE INDEX `function_versions_function_number` (`function_id`, `number`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 /*!80017 COLLATE=utf8mb4_0900_bin */ /*M!100203 COLLATE=utf8mb4_nopad_bin */;

CREATE TABLE `experiments` (
    `id` CHAR(36) NOT NULL,
    `project_id` CHAR(36) NOT NULL,
    `owner_id` CHAR(36) NOT NULL,
    `kind` VARCHAR(16) NOT NULL DEFAULT 'experiment',
    `function_version_id` CHAR(36),
    `name` VARCHAR(255) NOT NULL,
    `state` VARCHAR(16) NOT NULL DEFAULT 'CREATED',
    `spec` LONGTEXT NOT NULL,
    `source` LONGTEXT NOT NULL,
    `plan` LONGTEXT,
    `total` BIGINT NOT NULL DEFAULT 0,
    `on_failure` VARCHAR(16) NOT NULL DEFAULT 'continue',
    `compute` LONGTEXT NOT NULL,
    `storage_id` CHAR(36),
    `priority` SMALLINT NOT NULL DEFAULT 0,
    `derived_from` CHAR(36),
    `cancel_requested_at` BIGINT,
    `error` LONGTEXT,
    `version` INTEGER NOT NULL DEFAULT 1,
    `created_at` BIGINT NOT NULL,
    `submitted_at` BIGINT,
    `started_at` BIGINT,
    `finished_at` BIGINT,
    `updated_at` BIGINT NOT NULL,
    PRIMARY KEY (`id`),
    CONSTRAINT `experiments_project_id_fk` FOREIGN KEY (`project_id`) REFERENCES `projects` (`id`),
    CONSTRAINT `experiments_owner_id_fk` FOREIGN KEY (`owner_id`) REFERENCES `users` (`id`),
    CONSTRAINT `experiments_function_version_id_fk` FOREIGN KEY (`function_version_id`) REFERENCES `function_versions` (`id`),
    CONSTRAINT `experiments_storage_id_fk` FOREIGN KEY (`storage_id`) REFERENCES `storage_resources` (`id`),
    INDEX `experiments_project_created` (`project_id`, `created_at`),
    UNIQUE INDEX `experiments_function_owner` (`function_version_id`, `owner_id`),
    INDEX `experiments_state` (`state`, `id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 /*!80017 COLLATE=utf8mb4_0900_bin */ /*M!100203 COLLATE=utf8mb4_nopad_bin */;

CREATE TABLE `nodes` (
    `id` CHAR(36) NOT NULL,
    `experiment_id` CHAR(36) NOT NULL,
    `name` VARCHAR(255) NOT NULL,
    `position` INTEGER NOT NULL,
    `state` VARCHAR(16) NOT NULL DEFAULT 'WAITING',
    `spec` LONGTEXT NOT NULL,
    `total` BIGINT NOT NULL DEFAULT 0,
    `next_index` BIGINT NOT NULL DEFAULT 0,
    `selection` LONGTEXT,
    `generation` SMALLINT NOT NULL DEFAULT 0,
    `pending` BIGINT NOT NULL DEFAULT 0,
    `queued` BIGINT NOT NULL DEFAULT 0,
    `leased` BIGINT NOT NULL DEFAULT 0,
    `running` BIGINT NOT NULL DEFAULT 0,
    `finalizing` BIGINT NOT NULL DEFAULT 0,
    `completed` BIGINT NOT NULL DEFAULT 0,
    `failed` BIGINT NOT NULL DEFAULT 0,
    `cancelled` BIGINT NOT NULL DEFAULT 0,
    `skipped` BIGINT NOT NULL DEFAULT 0,
    `opened_at` BIGINT,
    `finished_at` BIGINT,
    PRIMARY KEY (`id`),
    CONSTRAINT `nodes_experiment_id_fk` FOREIGN KEY (`experiment_id`) REFERENCES `experiments` (`id`),
    UNIQUE INDEX `nodes_experiment_name` (`experiment_id`, `name`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 /*!80017 COLLATE=utf8mb4_0900_bin */ /*M!100203 COLLATE=utf8mb4_nopad_bin */;

CREATE TABLE `tasks` (
    `id` CHAR(36) NOT NULL,
    `experiment_id` CHAR(36) NOT NULL,
    `node_id` CHAR(36) NOT NULL,
    `idx` BIGINT NOT NULL,
    `generation` SMALLINT NOT NULL DEFAULT 0,
    `compute_id` CHAR(36),
    `state` SMALLINT NOT NULL DEFAULT 0,
    `priority` SMALLINT NOT NULL DEFAULT 0,
    `available_at` BIGINT NOT NULL DEFAULT 0,
    `cpu` SMALLINT NOT NULL DEFAULT 1,
    `ram_mb` INTEGER NOT NULL DEFAULT 0,
    `gpu` SMALLINT NOT NULL DEFAULT 0,
    `attempt` SMALLINT NOT NULL DEFAULT 0,
    `failures` SMALLINT NOT NULL DEFAULT 0,
    `infra_failures` SMALLINT NOT NULL DEFAULT 0,
    `refusals` SMALLINT NOT NULL DEFAULT 0,
    `lease_id` VARCHAR(32),
    `agent_id` CHAR(36),
    `session_id` CHAR(36),
    `claim_id` VARCHAR(64),
    `gate_open` BOOLEAN NOT NULL DEFAULT FALSE,
    `pinned` BOOLEAN NOT NULL DEFAULT FALSE,
    `leased_at` BIGINT,
    `started_at` BIGINT,
    `finished_at` BIGINT,
    `cancel_requested_at` BIGINT,
    `arguments` LONGTEXT,
    `reason` LONGTEXT,
    `created_at` BIGINT NOT NULL,
    PRIMARY KEY (`id`),
    INDEX `tasks_claim` (`compute_id`, `state`, `priority` DESC, `available_at`),
    INDEX `tasks_session_state` (`session_id`, `state`),
    INDEX `tasks_experiment_state` (`experiment_id`, `state`, `id`),
    UNIQUE INDEX `tasks_node_idx_generation` (`node_id`, `idx`, `generation`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 /*!80017 COLLATE=utf8mb4_0900_bin */ /*M!100203 COLLATE=utf8mb4_nopad_bin */;

CREATE TABLE `attempts` (
    `lease_id` VARCHAR(32) NOT NULL,
    `task_id` CHAR(36) NOT NULL,
    `experiment_id` CHAR(36) NOT NULL,
    `number` SMALLINT NOT NULL,
    `agent_id` CHAR(36),
    `session_id` CHAR(36),
    `compute_id` CHAR(36),
    `outcome` VARCHAR(16) NOT NULL,
    `failure_kind` VARCHAR(16),
    `failure_code` VARCHAR(64),
    `message` LONGTEXT,
    `exit_code` INTEGER,
    `signal` INTEGER,
    `leased_at` BIGINT,
    `started_at` BIGINT,
    `finished_at` BIGINT,
    `duration_ms` BIGINT,
    `cpu_ms` BIGINT,
    `max_rss_kb` BIGINT,
    `result` LONGTEXT,
    `report_digest` VARCHAR(64),
    PRIMARY KEY (`lease_id`),
    INDEX `attempts_task_id` (`task_id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 /*!80017 COLLATE=utf8mb4_0900_bin */ /*M!100203 COLLATE=utf8mb4_nopad_bin */;

CREATE TABLE `artifacts` (
    `id` CHAR(36) NOT NULL,
    `experiment_id` CHAR(36) NOT NULL,
    `node_id` CHAR(36) NOT NULL,
    `idx` BIGINT NOT NULL,
    `task_id` CHAR(36) NOT NULL,
    `lease_id` VARCHAR(32) NOT NULL,
    `attempt` SMALLINT NOT NULL,
    `output` VARCHAR(255) NOT NULL,
    `path` LONGTEXT NOT NULL,
    `size` BIGINT NOT NULL,
    `sha256` VARCHAR(64) NOT NULL,
    `storage_id` CHAR(36) NOT NULL,
    `storage_key` LONGTEXT NOT NULL,
    `state` VARCHAR(16) NOT NULL DEFAULT 'staged',
    `created_at` BIGINT NOT NULL,
    `published_at` BIGINT,
    PRIMARY KEY (`id`),
    INDEX `artifacts_task_id` (`task_id`),
    INDEX `artifacts_experiment_state` (`experiment_id`, `state`, `id`),
    INDEX `artifacts_node_idx` (`node_id`, `idx`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 /*!80017 COLLATE=utf8mb4_0900_bin */ /*M!100203 COLLATE=utf8mb4_nopad_bin */;

CREATE TABLE `logs` (
    `lease_id` VARCHAR(32) NOT NULL,
    `stream` VARCHAR(16) NOT NULL,
    `task_id` CHAR(36) NOT NULL,
    `size` BIGINT NOT NULL DEFAULT 0,
    `storage_key` LONGTEXT,
    `inline` LONGBLOB,
    `truncated` BOOLEAN NOT NULL DEFAULT FALSE,
    PRIMARY KEY (`lease_id`, `stream`),
    INDEX `logs_task_id` (`task_id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 /*!80017 COLLATE=utf8mb4_0900_bin */ /*M!100203 COLLATE=utf8mb4_nopad_bin */;

CREATE TABLE `blobs` (
    `project_id` CHAR(36) NOT NULL,
    `sha256` VARCHAR(64) NOT NULL,
    `size` BIGINT NOT NULL,
    `storage_id` CHAR(36) NOT NULL,
    `storage_key` LONGTEXT NOT NULL,
    `created_by` CHAR(36),
    `created_at` BIGINT NOT NULL,
    PRIMARY KEY (`project_id`, `sha256`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 /*!80017 COLLATE=utf8mb4_0900_bin */ /*M!100203 COLLATE=utf8mb4_nopad_bin */;

CREATE TABLE `events` (
    `id` CHAR(36) NOT NULL,
    `experiment_id` CHAR(36) NOT NULL,
    `at` BIGINT NOT NULL,
    `kind` VARCHAR(64) NOT NULL,
    `detail` LONGTEXT NOT NULL,
    PRIMARY KEY (`id`),
    INDEX `events_experiment_id` (`experiment_id`, `id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 /*!80017 COLLATE=utf8mb4_0900_bin */ /*M!100203 COLLATE=utf8mb4_nopad_bin */;

CREATE TABLE `task_stats` (
    `compute_id` CHAR(36) NOT NULL,
    `outcome` VARCHAR(16) NOT NULL,
    `le_ms` BIGINT NOT NULL,
    `count` BIGINT NOT NULL DEFAULT 0,
    `sum_ms` BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (`compute_id`, `outcome`, `le_ms`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 /*!80017 COLLATE=utf8mb4_0900_bin */ /*M!100203 COLLATE=utf8mb4_nopad_bin */;

INSERT INTO schema_version (version, name, applied_at) VALUES (1, 'initial', CAST(FLOOR(UNIX_TIMESTAMP(NOW(3)) * 1000) AS SIGNED));
