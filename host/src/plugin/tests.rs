//! The plugin host against real components: samples from `plugins/dist` and hostile ones written in text form.

use super::*;

mod hostile;
