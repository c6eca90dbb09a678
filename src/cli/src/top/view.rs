//! What `top` shows, and the keys that change it.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use keyviz_proto as proto;

/// What is shown, which keys change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct View {
    pub(super) rank: proto::Rank,
    pub(super) routes: bool,
    pub(super) paused: bool,
}

/// What a key does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Act {
    Quit,
    Ask,
    Draw,
    Nothing,
}

impl View {
    /// Takes a key.
    pub(super) fn press(&mut self, key: KeyEvent) -> Act {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        self.rank = match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Act::Quit,
            KeyCode::Char('c') if control => return Act::Quit,
            KeyCode::Char('c') => proto::Rank::Cost,
            KeyCode::Char('r') => proto::Rank::Reads,
            KeyCode::Char('w') => proto::Rank::Writes,
            KeyCode::Char('R') => proto::Rank::ReadBytes,
            KeyCode::Char('W') => proto::Rank::WriteBytes,
            KeyCode::Char('o') => {
                self.routes = !self.routes;
                return Act::Ask;
            }
            KeyCode::Char(' ') => {
                self.paused = !self.paused;
                return Act::Draw;
            }
            _ => return Act::Nothing,
        };
        Act::Ask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_change_what_is_ranked_by() {
        let mut view = View { rank: proto::Rank::Cost, routes: false, paused: false };
        let mut press = |code, modifiers| view.press(KeyEvent::new(code, modifiers));
        assert_eq!(press(KeyCode::Char('w'), KeyModifiers::NONE), Act::Ask);
        assert_eq!(press(KeyCode::Char('o'), KeyModifiers::NONE), Act::Ask);
        assert_eq!(press(KeyCode::Char(' '), KeyModifiers::NONE), Act::Draw);
        assert_eq!(press(KeyCode::Char('x'), KeyModifiers::NONE), Act::Nothing);
        assert_eq!(press(KeyCode::Char('c'), KeyModifiers::CONTROL), Act::Quit);
        assert_eq!(press(KeyCode::Esc, KeyModifiers::NONE), Act::Quit);
        assert_eq!(view, View { rank: proto::Rank::Writes, routes: true, paused: true });
    }
}
