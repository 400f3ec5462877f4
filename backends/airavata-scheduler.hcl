# What the scheduler's servers and daemons may do in OpenBao, and no more.
# The mounts are those of OPENBAO_CREDENTIALS_PATH, OPENBAO_TRANSIT_PATH and OPENBAO_SSH_PATH; other names are put in
# by `airavata-scheduler secrets policy`.

# Values and their versions: written by check-and-set, read by version.
path "credentials/data/*" {
  capabilities = ["create", "read", "update"]
}

# The orphan collector lists, and destroys what no row names.
path "credentials/metadata/*" {
  capabilities = ["read", "list", "delete"]
}
path "credentials/metadata" {
  capabilities = ["list"]
}
path "credentials/destroy/*" {
  capabilities = ["update"]
}

# Every value is wrapped before it is written.
path "transit/encrypt/credentials" {
  capabilities = ["update"]
}
path "transit/decrypt/credentials" {
  capabilities = ["update"]
}
path "transit/rewrap/credentials" {
  capabilities = ["update"]
}

# Short-lived certificates for SSH.
path "ssh/sign/*" {
  capabilities = ["update"]
}
path "ssh/config/ca" {
  capabilities = ["read"]
}

# Its own token, and what it may do: the start-up check asks.
path "auth/token/lookup-self" {
  capabilities = ["read"]
}
path "auth/token/renew-self" {
  capabilities = ["update"]
}
path "auth/token/revoke-self" {
  capabilities = ["update"]
}
path "sys/capabilities-self" {
  capabilities = ["update"]
}
