//! Processing: the receiver builds the image and puts it into the store.

use std::time::{Duration, Instant};

use domain::job::Event;
use domain::{Failure, FailureCode};
use proto::receiver::{ImageStatus, image_status};
use telemetry::Metric;

use super::preparing::Site;
use super::{Ended, Run, disks, internal, lost_or_ended, persist, syncing};

/// Pause between two status calls to the receiver.
const POLL: Duration = Duration::from_millis(500);

impl Run {
    pub(super) async fn process(&mut self, mut site: Site) -> Result<(), Ended> {
        let started = Instant::now();
        let epoch = self.lease.epoch;
        let built = self.build_somewhere(&mut site).await;
        let outcome = if built.is_ok() { "built" } else { "failed" };
        telemetry::histogram(Metric::ImageBuildSeconds, &[("outcome", outcome)])
            .record(started.elapsed().as_secs_f64());
        let image = built?;
        let description = description(&image)?;
        disks::are_described(&self.facts.disks, &description)?;
        let finished = persist(|| {
            self.context.store.finish_image(
                &site.image.id,
                epoch,
                &image.location,
                &description,
                image.bytes_stored,
            )
        })
        .await;
        if !finished.map_err(|error| internal(&error))? {
            return Err(Ended::Fenced);
        }
        self.event(Event::Processed, None).await
    }

    /// Builds the image in the site, or in the one that replaces it.
    async fn build_somewhere(&mut self, site: &mut Site) -> Result<ImageStatus, Ended> {
        // The received data is kept; the agent proves it to the next receiver.
        let mut last = String::new();
        for _ in 0..=self.context.config.receiver_losses {
            match self.build(site).await? {
                Building::Stored(image) => return Ok(image),
                Building::Lost(message) => {
                    tracing::warn!(job_id = %self.lease.job_id, message, "the receiver is lost and is replaced");
                    self.observe("starting a new receiver: the last one was lost")
                        .await?;
                    let replaced = self
                        .open_site(site.instance.clone(), site.image.clone())
                        .await?;
                    *site = self.receive_all(replaced).await?;
                    last = message;
                }
            }
        }
        let sentence = "The receiver was lost again and again while it made the image. Tell the operator, then start the job again: \
                        the copy is kept.";
        let failure = Failure::new(FailureCode::ReceiverLost, sentence);
        Err(failure.with_cause(last).into())
    }

    async fn build(&mut self, site: &Site) -> Result<Building, Ended> {
        let mut heard_at = Instant::now();
        let mut asked = false;
        loop {
            let answer = if asked {
                site.client.status(self.lease.epoch.0).await
            } else {
                let built = site.client.build_image(self.lease.epoch.0).await;
                asked = built.is_ok();
                match built {
                    Ok(()) => site.client.status(self.lease.epoch.0).await,
                    Err(error) => Err(error),
                }
            };
            match answer {
                Ok(status) => {
                    heard_at = Instant::now();
                    self.progress.stored(&status);
                    let image = status.image.clone().unwrap_or_default();
                    match image.state() {
                        image_status::State::Stored => return Ok(Building::Stored(image)),
                        image_status::State::Failed => {
                            let unknown = || {
                                Failure::new(FailureCode::ImageFailed, "The image can't be made.")
                            };
                            return Err(syncing::failure_of(&status)
                                .unwrap_or_else(unknown)
                                .into());
                        }
                        _ => {
                            let percent = (image.progress * 100.0).round();
                            self.observe(&format!("making the image: {percent} %"))
                                .await?;
                            self.stays_within_quota()?;
                        }
                    }
                }
                Err(error) => {
                    let message = lost_or_ended(error)?;
                    let is_gone = !self.is_running(&site.instance).await;
                    if is_gone || heard_at.elapsed() > self.context.config.receiver_silence() {
                        return Ok(Building::Lost(message));
                    }
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

enum Building {
    Stored(ImageStatus),
    Lost(String),
}

fn description(image: &ImageStatus) -> Result<store::JsonValue, Ended> {
    image.description.parse().map_err(|_| {
        Ended::Failed(Failure::new(
            FailureCode::ImageFailed,
            "The receiver's description of the image can't be read.",
        ))
    })
}
