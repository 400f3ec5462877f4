# One OpenBao, for production. docs/operations.md says how it is started and set up.
# The paths are those of the image openbao/openbao; without it, make the three folders and certs/.

storage "raft" {
  path                   = "/openbao/file"
  node_id                = "openbao"
  performance_multiplier = 1
}

listener "tcp" {
  address         = "0.0.0.0:8200"
  cluster_address = "0.0.0.0:8201"
  tls_cert_file   = "/openbao/certs/openbao.pem"
  tls_key_file    = "/openbao/certs/openbao.key"
}

# By these others reach it: never 0.0.0.0. BAO_API_ADDR and BAO_CLUSTER_ADDR override them.
api_addr     = "https://openbao:8200"
cluster_addr = "https://openbao:8201"

ui = true

# Two, for a request that no device can write is refused: put them on different disks. Secrets are
# hashed in them. Rename a file and send SIGHUP to begin a new one.
audit "file" "one" {
  options {
    file_path = "/openbao/logs/audit-1.log"
  }
}

audit "file" "two" {
  options {
    file_path = "/openbao/logs/audit-2.log"
  }
}

# Without a seal here, the key is in shares that people keep, and each start waits for them. With
# one it unseals itself: a key file (32 random bytes, 0400, on another disk than the data) or a KMS.
# seal "static" {
#   current_key_id = "2026-11-26"
#   current_key    = "file:///run/secrets/openbao-seal-key"
# }
