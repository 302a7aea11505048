//! openraft, kept behind our own facade.
