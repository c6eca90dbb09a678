//! What a node alerts on, and whom it tells.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::UsageError;
use keyviz_node::alerts::{
    AlertOptions, DEFAULT_RULES, MAX_RULES_BYTES, RulesError, Webhook, WebhookError, parse_rules,
};

/// The value of `--alert-rules` for the rules that are shipped.
const DEFAULT: &str = "default";

/// The text of the rules, and the receiver, both checked.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AlertFlags {
    rules: Option<String>,
    webhook: Option<String>,
}

/// Why they cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AlertFlagsError {
    /// The rules.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// The receiver.
    #[error(transparent)]
    Webhook(#[from] WebhookError),
}

impl AlertFlags {
    /// For a node.
    ///
    /// # Errors
    /// None of those that were checked.
    pub fn parsed(&self) -> Result<AlertOptions, AlertFlagsError> {
        let rules = self.rules.as_deref().map(parse_rules).transpose()?.unwrap_or_default();
        let webhook = self.webhook.as_deref().map(str::parse::<Webhook>).transpose()?;
        Ok(AlertOptions { rules, webhook })
    }
}

/// The flags.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Alerts")]
pub struct AlertArgs {
    /// Alert on the load of keys by the rules in this YAML file, or by those that are shipped:
    /// default. The leader of the catalog group judges each column once it is closed; give all
    /// nodes the same rules. Absent: no alerts. See `keyviz alerts check`
    #[arg(long, env = "KEYVIZ_ALERT_RULES", value_name = "FILE")]
    alert_rules: Option<PathBuf>,
    /// Tell this receiver, http://HOST[:PORT]/PATH, what fires and what is resolved, as
    /// Alertmanager tells its webhooks; absent: metrics and /api/v1/alerts alone
    #[arg(long, env = "KEYVIZ_ALERT_WEBHOOK", value_name = "URL", requires = "alert_rules")]
    alert_webhook: Option<String>,
}

/// The text of rules: a file, or those that are shipped.
pub(crate) fn read_rules(path: &Path) -> Result<String, RulesError> {
    if path == Path::new(DEFAULT) {
        return Ok(DEFAULT_RULES.to_owned());
    }
    let unreadable = |error: std::io::Error| RulesError::Unreadable(error.to_string());
    let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
    if bytes > MAX_RULES_BYTES as u64 {
        return Err(RulesError::TooLarge(usize::try_from(bytes).unwrap_or(usize::MAX)));
    }
    std::fs::read_to_string(path).map_err(unreadable)
}

impl AlertArgs {
    /// Reads and checks the rules.
    ///
    /// # Errors
    /// Names the flag and what is wrong, with line and column.
    pub fn flags(&self) -> Result<AlertFlags, UsageError> {
        let rules = self.alert_rules.as_deref().map(read_rules).transpose();
        let flags = rules.map(|rules| AlertFlags { rules, webhook: self.alert_webhook.clone() });
        let path = self.alert_rules.as_deref().unwrap_or(Path::new("")).display();
        let wrong_rules = |error| UsageError::value("--alert-rules <FILE>", &path, error);
        let flags = flags.map_err(|error| wrong_rules(error.to_string()))?;
        match flags.parsed() {
            Ok(_) => Ok(flags),
            Err(AlertFlagsError::Rules(error)) => Err(wrong_rules(error.to_string())),
            Err(AlertFlagsError::Webhook(error)) => {
                let url = self.alert_webhook.clone().unwrap_or_default();
                Err(UsageError::value("--alert-webhook <URL>", url, error))
            }
        }
    }
}
