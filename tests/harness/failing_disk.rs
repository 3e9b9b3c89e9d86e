//! A disk that fails beneath the broker: a library that it is started with (`failing_disk.c`). A stand-in, as no mount
//! becomes read-only beneath files that are open to be written, and no sync of a good disk fails.

use crate::preloaded::Preloaded;

/// The disk of a process.
pub struct FailingDisk(Preloaded);

impl FailingDisk {
    /// One that works.
    #[must_use]
    pub fn working() -> Self {
        Self(Preloaded::of("failing_disk.c", "ATTACHE_TEST_DISK"))
    }

    /// Nothing on it can be changed any more.
    pub fn becomes_read_only(&self) {
        self.0.tell(1);
    }

    /// It takes what is written, and cannot say that it is safe there.
    pub fn fails_to_sync(&self) {
        self.0.tell(2);
    }

    /// It works again.
    pub fn works(&self) {
        self.0.tell(0);
    }

    /// What a process that is on it has in its environment.
    #[must_use]
    pub fn env(&self) -> Vec<(String, String)> {
        self.0.env()
    }
}
