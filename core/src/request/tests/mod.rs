//! Promises about one request, from its bytes to what arrives upstream.

mod behind_the_door;
mod companions;
mod destination;
mod evidence;
mod malformed;
mod passes;
mod query;
mod reads_only;
mod strips;
mod upgrades;
mod veils;
