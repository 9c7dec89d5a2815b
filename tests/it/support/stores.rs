//! The two stores, behind one face: the same test on both.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use super::{mariadb::Mariadb, server::Setup};

/// Which store a server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    Sqlite,
    MariaDb,
}

impl Store {
    pub(crate) const BOTH: [Self; 2] = [Self::Sqlite, Self::MariaDb];

    /// A server with an empty store of this kind.
    pub(crate) fn setup(self) -> Setup {
        match self {
            Self::Sqlite => Setup::new(),
            Self::MariaDb => on(&Mariadb::shared()),
        }
    }
}

/// A server with an empty database of `mariadb`.
pub(crate) fn on(mariadb: &Arc<Mariadb>) -> Setup {
    static N_DATABASES: AtomicU32 = AtomicU32::new(0);
    let name = format!("server_{}", N_DATABASES.fetch_add(1, Ordering::Relaxed));
    mariadb.create_database(&name);
    Setup::new().database(mariadb, &name)
}
