//! The worker's service. Every call comes from the worker, proved by its certificate, and carries the epoch of its
//! lease. No call names the disks to receive or the image to build: the worker has written both into the instance.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use domain::Epoch;
use domain::disk::Moment;
use proto::receiver as wire;
use proto::receiver::receiver_service_server::ReceiverService;
use tonic::metadata::{KeyAndValueRef, MetadataMap, MetadataValue};
use tonic::transport::server::{TlsConnectInfo, UdsConnectInfo};
use tonic::{Request, Response, Status};
use tracing::Instrument as _;
use transfer::disk::stored_bytes;
use transfer::receiver::{ReceiveStatus, Server};

use crate::image::{Builder, Order, Progress};
use crate::instance::Work;

/// Admits only the worker, before any call is read. The run's authority has signed for the agent and the receiver as
/// well.
///
/// # Errors
/// PERMISSION_DENIED.
pub(crate) fn only_the_worker(request: Request<()>) -> Result<Request<()>, Status> {
    let connection = request.extensions().get::<TlsConnectInfo<UdsConnectInfo>>();
    let chain = connection.and_then(TlsConnectInfo::peer_certs);
    let certificate = chain.as_ref().and_then(|chain| chain.first());
    if certificate.is_some_and(|certificate| transport::is_named(certificate, wire::CONTROL_NAME)) {
        Ok(request)
    } else {
        Err(Status::permission_denied(
            "only the worker of a run may call its receiver",
        ))
    }
}

/// The service; clones share one receiver.
#[derive(Debug, Clone)]
pub(crate) struct Control {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    server: Server,
    builder: Builder,
    work: Work,
}

impl Control {
    pub(crate) fn new(server: Server, builder: Builder, work: Work) -> Self {
        Self {
            shared: Arc::new(Shared {
                server,
                builder,
                work,
            }),
        }
    }

    /// Flushes, before the process ends.
    pub(crate) async fn halt_for_good(&self) {
        if let Err(error) = self.shared.server.halt().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the last flush failed; what it held is sent again"
            );
        }
    }

    fn check(&self, epoch: i64) -> Result<(), Status> {
        let served = self.shared.work.admission.epoch;
        match Epoch(epoch).cmp(&served) {
            Ordering::Equal => Ok(()),
            Ordering::Less => Err(Status::failed_precondition(format!(
                "epoch {epoch} is over, this receiver serves epoch {served}"
            ))),
            Ordering::Greater => Err(Status::unavailable(format!(
                "this receiver serves epoch {served}, and epoch {epoch} needs one of its own"
            ))),
        }
    }
}

#[tonic::async_trait]
impl ReceiverService for Control {
    async fn admit(
        &self,
        request: Request<wire::AdmitRequest>,
    ) -> Result<Response<wire::AdmitResponse>, Status> {
        let span = span("receiver.admit", request.metadata());
        self.check(request.into_inner().epoch)?;
        self.shared
            .server
            .admit(self.shared.work.admission.clone())
            .instrument(span)
            .await
            .map_err(|error| refuse(&error))?;
        let address = self
            .shared
            .server
            .address()
            .map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(wire::AdmitResponse {
            data_port: address.port().into(),
        }))
    }

    async fn status(
        &self,
        request: Request<wire::StatusRequest>,
    ) -> Result<Response<wire::StatusResponse>, Status> {
        self.check(request.into_inner().epoch)?;
        let receive = self.shared.server.status().borrow().clone();
        let image = self.shared.builder.progress();
        let (all, of_image) = self.stored_bytes().await;
        let ended = self.shared.server.ended().into_iter();
        Ok(Response::new(wire::StatusResponse {
            ended: ended
                .filter(|(_, connections)| *connections > 0)
                .map(|(reason, connections)| wire::Ended {
                    reason: reason.as_str().to_owned(),
                    connections,
                })
                .collect(),
            bytes_stored: all,
            image: Some(image_status(&image, of_image)),
            ..status(receive, &image)
        }))
    }

    async fn halt(
        &self,
        request: Request<wire::HaltRequest>,
    ) -> Result<Response<wire::HaltResponse>, Status> {
        let span = span("receiver.halt", request.metadata());
        self.check(request.into_inner().epoch)?;
        self.shared
            .server
            .halt()
            .instrument(span)
            .await
            .map_err(|error| refuse(&error))?;
        Ok(Response::new(wire::HaltResponse {}))
    }

    async fn build_image(
        &self,
        request: Request<wire::BuildImageRequest>,
    ) -> Result<Response<wire::BuildImageResponse>, Status> {
        let span = span("receiver.build_image", request.metadata());
        self.check(request.into_inner().epoch)?;
        let order = self.order()?;
        // From here on nothing writes the disks that the image is made of.
        let halted = self.shared.server.halt().instrument(span.clone()).await;
        halted.map_err(|error| refuse(&error))?;
        self.shared.builder.start(order, span);
        Ok(Response::new(wire::BuildImageResponse {}))
    }
}

impl Control {
    /// Bytes that everything of this instance takes in the stores, and those of the image alone.
    async fn stored_bytes(&self) -> (u64, u64) {
        let Shared {
            server,
            work,
            builder,
        } = &*self.shared;
        let instance = server.directory().to_owned();
        let [partial, image] = builder.directories(&work.image_id);
        let counted = tokio::task::spawn_blocking(move || {
            (
                stored_bytes(&[&instance, &partial, &image]),
                stored_bytes(&[&image]),
            )
        });
        counted.await.unwrap_or_default()
    }

    /// Returns the contents of the image. Fails unless every disk has its receipt.
    fn order(&self) -> Result<Order, Status> {
        let Shared { server, work, .. } = &*self.shared;
        if !server.status().borrow().is_complete() {
            return Err(Status::unavailable("not every disk has its receipt"));
        }
        let disks = work
            .admission
            .disks
            .iter()
            .map(|disk| {
                let proven = server.proven(disk.index)?;
                Some((*disk, server.disk_path(disk.index), proven))
            })
            .collect::<Option<_>>()
            .ok_or_else(|| Status::unavailable("a disk has lost its receipt"))?;
        Ok(Order {
            image_id: work.image_id.clone(),
            image_name: work.image_name.clone(),
            job_id: work.admission.job_id.clone(),
            source_id: work.source_id.clone(),
            layouts: work.layouts.clone(),
            disks,
        })
    }
}

fn status(receive: ReceiveStatus, image: &Progress) -> wire::StatusResponse {
    let disks = receive
        .disks
        .iter()
        .map(|disk| wire::DiskStatus {
            index: disk.index.0.into(),
            size_bytes: disk.size_bytes,
            bytes_durable: disk.bytes_durable,
            unreadable_ranges: disk.unreadable_ranges,
            unreadable_bytes: disk.unreadable_bytes,
            receipt: disk.receipt.map(|receipt| wire::Receipt {
                root_hash: receipt.root().to_vec(),
                size_bytes: receipt.size_bytes(),
                chunks: receipt.chunks(),
                moment: moment(receipt.moment()).into(),
            }),
        })
        .collect();
    let failure = receive.failure.or_else(|| match image {
        Progress::Failed(failure) => Some(failure.clone()),
        Progress::None | Progress::Building(_) | Progress::Stored { .. } => None,
    });
    wire::StatusResponse {
        disks,
        agent_connected: receive.connected,
        bytes_wire: receive.bytes_wire,
        transport: receive
            .transport
            .map_or_else(String::new, |transport| transport.to_string()),
        transport_reason: receive.transport_reason,
        bytes_free: receive.bytes_free,
        bytes_covered: receive.bytes_covered,
        failure: failure.map(|failure| wire::Failure {
            code: failure.code.to_string(),
            message: failure.message,
            cause: failure.cause,
        }),
        image: None,
        ended: Vec::new(),
        bytes_stored: 0,
    }
}

fn moment(moment: Moment) -> wire::receipt::Moment {
    match moment {
        Moment::One => wire::receipt::Moment::One,
        Moment::Several => wire::receipt::Moment::Several,
        Moment::Unknown => wire::receipt::Moment::Unspecified,
    }
}

fn image_status(progress: &Progress, bytes_stored: u64) -> wire::ImageStatus {
    use wire::image_status::State;

    let (state, fraction, location, description) = match progress {
        Progress::None => (State::None, 0.0, "", ""),
        Progress::Building(fraction) => (State::Building, *fraction, "", ""),
        Progress::Stored {
            location,
            description,
        } => (State::Stored, 1.0, location.as_str(), description.as_str()),
        Progress::Failed(_) => (State::Failed, 0.0, "", ""),
    };
    wire::ImageStatus {
        state: state.into(),
        progress: fraction,
        location: location.to_owned(),
        description: description.to_owned(),
        bytes_stored,
    }
}

/// Returns a failure of the data path with its code for the worker.
fn refuse(error: &transfer::TransferError) -> Status {
    if matches!(error, transfer::TransferError::Fenced { .. }) {
        return Status::failed_precondition(error.to_string());
    }
    let failure = error.failure();
    let mut status = Status::unavailable(failure.message);
    if let Ok(value) = MetadataValue::try_from(failure.code.as_str()) {
        status.metadata_mut().insert(wire::FAILURE_KEY, value);
    }
    let cause = MetadataValue::from_bytes(failure.cause.as_bytes());
    status.metadata_mut().insert_bin(wire::CAUSE_KEY, cause);
    status
}

/// Returns a span in the worker's trace.
fn span(name: &'static str, metadata: &MetadataMap) -> tracing::Span {
    let headers: HashMap<String, String> = metadata
        .iter()
        .filter_map(|entry| match entry {
            KeyAndValueRef::Ascii(key, value) => {
                Some((key.to_string(), value.to_str().ok()?.to_owned()))
            }
            KeyAndValueRef::Binary(..) => None,
        })
        .collect();
    let span = tracing::info_span!("receiver", otel.name = name);
    telemetry::trace_context::extract(&span, &headers);
    span
}
