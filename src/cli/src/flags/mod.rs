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
