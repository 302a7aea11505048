//! A disk in memory that fails as tests want it to.
