//! TEST UNIT READY (SPC-5, clause of the command).

use super::command::ScsiCommand;

/// TEST UNIT READY: all zeros, no data; the answer is in the status and the sense data.
pub fn command() -> ScsiCommand {
    ScsiCommand::without_data([0; 16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_what_its_name_says() {
        assert_eq!(command().name(), "TEST UNIT READY");
        assert_eq!(command().data.length_bytes(), 0);
    }
}
