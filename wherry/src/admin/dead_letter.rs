//! `wherry admin dead-letter`: messages between Wherry's processes that no process could read or carry out.

use anyhow::Context as _;
use clap::Subcommand;
use proto::admin as wire;
use serde_json::{Value, json};

use super::socket::{Client, said};
use super::{Answer, rows, show};

#[derive(Debug, Subcommand)]
pub(super) enum DeadLetterCommand {
    /// Lists them, those that died last first.
    List,
    /// Shows one with its bytes and headers.
    Show {
        /// Its number.
        id: String,
    },
    /// Sends one on its way again, when the reason that it died of is gone.
    Retry {
        /// Its number.
        id: String,
    },
    /// Forgets a message. Its work is found in the database and requested again, if it is still wanted.
    Delete {
        /// Its number.
        id: String,
    },
}

impl DeadLetterCommand {
    pub(super) async fn run(self, client: &mut Client) -> anyhow::Result<Answer> {
        match self {
            Self::List => {
                let letters = letters(client, "").await?;
                let answer = letters.into_iter().map(summary).collect();
                Ok((answer, |letters| {
                    rows(
                        letters,
                        &["Id", "Subject", "Times", "FirstTime", "LastTime", "Reason"],
                    )
                }))
            }
            Self::Show { id } => {
                let letter = letters(client, &id).await?.pop();
                let letter = letter.with_context(|| format!("there is no dead letter {id}"))?;
                Ok((whole(letter), show))
            }
            Self::Retry { id } => {
                let request = wire::RetryDeadLetterRequest { id: id.clone() };
                client.retry_dead_letter(request).await.map_err(said)?;
                Ok((json!({ "Id": id, "Retried": true }), show))
            }
            Self::Delete { id } => {
                let request = wire::DeleteDeadLetterRequest { id: id.clone() };
                client.delete_dead_letter(request).await.map_err(said)?;
                Ok((json!({ "Id": id, "Deleted": true }), show))
            }
        }
    }
}

async fn letters(client: &mut Client, id: &str) -> anyhow::Result<Vec<wire::DeadLetter>> {
    let request = wire::ListDeadLettersRequest { id: id.to_owned() };
    let listed = client.list_dead_letters(request).await.map_err(said)?;
    Ok(listed.into_inner().letters)
}

fn summary(letter: wire::DeadLetter) -> Value {
    json!({
        "Id": letter.id,
        "Subject": letter.subject,
        "Times": letter.times,
        "FirstTime": letter.first_time,
        "LastTime": letter.last_time,
        "Reason": letter.reason,
    })
}

fn whole(letter: wire::DeadLetter) -> Value {
    let payload: String = letter
        .payload
        .iter()
        .flat_map(|&byte| std::ascii::escape_default(byte))
        .map(char::from)
        .collect();
    let mut headers: Vec<String> = letter
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    headers.sort();
    let mut whole = summary(letter);
    whole["Payload"] = payload.into();
    whole["Headers"] = headers.join("; ").into();
    whole
}
