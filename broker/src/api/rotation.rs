//! A secret that is replaced at an operator's word.

use super::answer::{ApiError, json, parse};
use super::control::{Answer, Body, Door, whole};
use super::view::{Rotate, RotatedView, Rotating};
use crate::rotation::Rotated;
use attache_core::names::Name;
use axum::extract::{Path, State};

/// Replaces a credential's secret, and answers when no worker uses the one of before; or ends the overlap of the last
/// time. Without a rotation in the config its source is looked at once more, as `reload` does.
#[utoipa::path(post, path = "/v1/credentials/{name}/rotate", params(("name" = Name, Path)), request_body = Rotate,
    responses(
    (status = 200, body = RotatedView), (status = 400, body = super::answer::Failure),
    (status = 404, body = super::answer::Failure), (status = 409, body = super::answer::Failure),
    (status = 413, body = super::answer::Failure), (status = 502, body = super::answer::Failure),
))]
pub(super) async fn rotate(State(door): Door, Path(name): Path<String>, body: Body) -> Answer {
    let Rotate { retire_now } = parse(&body?)?;
    let name = Name::parse(&name).map_err(|_| ApiError::Field("the credential's name"))?;
    let of = name.clone();
    let (rotations, operator) = (door.rotations.clone(), door.operator.clone());
    let done = whole(async move {
        Ok::<_, ApiError>(match rotations.rotate(&of, retire_now).await? {
            Some(rotated) => Some((Rotating::of(&rotated), rotated)),
            None => operator.reload(&of).await.map(|(_, applied)| {
                (Rotating::Reloaded, Rotated { applied: Some(applied), old: None, retire_ms: None })
            }),
        })
    });
    let (what, rotated) = done.await??.ok_or_else(|| ApiError::NoSuchCredential(name.clone()))?;
    let mut standings = door.leases.standings();
    door.rotations.mark(&mut standings);
    let credential = standings.into_iter().find(|standing| standing.name == name);
    let credential = credential.ok_or(ApiError::NoSuchCredential(name))?;
    let Rotated { applied, old, retire_ms } = rotated;
    Ok(json(&RotatedView { what, credential, applied, old, retire_ms }))
}
