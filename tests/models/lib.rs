//! Stands for the models, which are the unit tests `loom_tests` of the library.
