//! Values and flags that several commands share.

pub(crate) mod access;
pub(crate) mod alert_flags;
pub(crate) mod autopilot_flags;
pub(crate) mod keyviz_flags;
pub(crate) mod security_flags;
pub(crate) mod storage_flags;
pub(crate) mod usage;
pub(crate) mod value_input;
pub(crate) mod values;

/// Flags that accept any text; a value that begins with a hyphen is taken for the next flag.
pub(crate) const FREE_TEXT: [&str; 26] = [
    "accept_loss",
    "expect",
    "expect_file",
    "value_file",
    "data",
    "out",
    "from",
    "trace",
    "record",
    "key_prefix",
    "log",
    "start",
    "end",
    "split_at",
    "request_id",
    "tls_ca",
    "tls_cert",
    "tls_key",
    "token_file",
    "admin_token_file",
    "operator_token_file",
    "viewer_token_file",
    "store_token_file",
    "alert_rules",
    "alert_webhook",
    "cluster_secret_file",
];
