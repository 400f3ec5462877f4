# Each of three OpenBao nodes, for production: the same file on all of them.
# What differs is given in the environment, for example on the first:
#   BAO_RAFT_NODE_ID=openbao-1 BAO_API_ADDR=https://openbao-1:8200 BAO_CLUSTER_ADDR=https://openbao-1:8201
# Nodes talk to each other over TLS on 8201 always; each certificate names its own node.

storage "raft" {
  path                   = "/openbao/file"
  performance_multiplier = 1

  retry_join {
    leader_api_addr     = "https://openbao-1:8200"
    leader_ca_cert_file = "/openbao/certs/ca.pem"
  }

  retry_join {
    leader_api_addr     = "https://openbao-2:8200"
    leader_ca_cert_file = "/openbao/certs/ca.pem"
  }

  retry_join {
    leader_api_addr     = "https://openbao-3:8200"
    leader_ca_cert_file = "/openbao/certs/ca.pem"
  }
}

listener "tcp" {
  address         = "0.0.0.0:8200"
  cluster_address = "0.0.0.0:8201"
  tls_cert_file   = "/openbao/certs/openbao.pem"
  tls_key_file    = "/openbao/certs/openbao.key"
}

ui = true

# These texts are kept in the cluster: a node whose file says something else cannot become leader.
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
