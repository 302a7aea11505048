//! Where state rows are: overlay generations above what is sealed, and the stage that brings keys to memory before apply.
