-- GopherWatch's alert history on MySQL 8.0+ and MariaDB 10.6+.
--
-- The server applies this file by itself, in the database that DATABASE_URL names and without the two statements below;
-- by hand: mysql < schema.sql. It is read by a simple program: one column or key per line, nothing after the comma.

CREATE DATABASE IF NOT EXISTS gopherwatch;
USE gopherwatch;

-- Every column that the original table lacked is NULL or has a default, so that its INSERT still works:
--   INSERT INTO alerts (service_name, metric, metric_value) VALUES ('web', 'cpu', 97.5);
--
-- alert_id is the only unique key besides the primary: the upsert recognises a row by it.
-- firing is 1 while an alert fires, 0 once it is resolved, NULL for rows of the original program, which knew neither. It
-- is STORED: purging an indexed VIRTUAL column has a long history of server bugs, and it costs one byte.
--
-- One index for each filter of /alerts/history, in the order of its pages, so that a page costs its own rows and no more,
-- however many rows match. `id` stands at the end of ours although InnoDB adds it unasked: written out, it can bound
-- a range, which is what page 1,000 begins with when all rows have one time. idx_open serves pruning.
CREATE TABLE IF NOT EXISTS alerts (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  service_name VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  metric VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  metric_value DOUBLE NOT NULL,
  triggered_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  alert_id BINARY(16) NULL DEFAULT NULL,
  instance VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL DEFAULT NULL,
  rule_name VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL DEFAULT NULL,
  severity VARCHAR(16) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL DEFAULT NULL,
  threshold DOUBLE NULL DEFAULT NULL,
  labels MEDIUMTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL,
  summary MEDIUMTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL,
  evidence MEDIUMTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL,
  events MEDIUMTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL,
  late TINYINT NOT NULL DEFAULT 0,
  received_at TIMESTAMP(6) NULL DEFAULT NULL,
  stored_at TIMESTAMP(6) NULL DEFAULT NULL,
  resolved_at TIMESTAMP(6) NULL DEFAULT NULL,
  resolve_reason VARCHAR(32) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL DEFAULT NULL,
  last_value DOUBLE NULL DEFAULT NULL,
  episode_id BINARY(16) NULL DEFAULT NULL,
  server_id BINARY(16) NULL DEFAULT NULL,
  version INT UNSIGNED NOT NULL DEFAULT 0,
  firing TINYINT GENERATED ALWAYS AS (IF(alert_id IS NULL, NULL, resolved_at IS NULL)) STORED,
  PRIMARY KEY (id),
  UNIQUE KEY alert_id (alert_id),
  KEY idx_service_time (service_name, triggered_at),
  KEY idx_time (triggered_at, id),
  KEY idx_open (resolved_at),
  KEY idx_instance_time (instance, triggered_at, id),
  KEY idx_metric_time (metric, triggered_at, id),
  KEY idx_rule_time (rule_name, triggered_at, id),
  KEY idx_severity_time (severity, triggered_at, id),
  KEY idx_firing_time (firing, triggered_at, id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
