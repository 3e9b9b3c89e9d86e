//! Against a real OpenBao: what is read there is injected, what is leased is renewed and given back, and what is wrong
//! is told in words. `scripts/openbao` gets it; without it these tests say so and pass.

#[path = "openbao/answers.rs"]
mod answers;
#[path = "openbao/bundles.rs"]
mod bundles;
#[path = "openbao/clocks.rs"]
mod clocks;
#[path = "openbao/injects.rs"]
mod injects;
#[path = "openbao/jwt.rs"]
mod jwt;
#[path = "openbao/leases.rs"]
mod leases;
#[path = "openbao/logs_in.rs"]
mod logs_in;
#[path = "openbao/postgres.rs"]
mod postgres;
#[path = "openbao/seals.rs"]
mod seals;
#[path = "openbao/world.rs"]
mod world;

use attache_tests::openbao as server;
