//! MODE SENSE(6) and (10): caching, control and informational exceptions pages (SPC-5 section 6.14).

use super::{Cdb, Lun, Outcome, Sense, truncated};
use crate::bytes::be16;

pub(super) fn sense(lun: &Lun, cdb: &Cdb) -> Outcome {
    let short = cdb[0] == 0x1a;
    let (control, page, subpage) = (cdb[2] >> 6, cdb[2] & 0x3f, cdb[3]);
    // Saved values are not supported.
    if control == 3 {
        return Err(Sense::new(0x05, 0x39, 0x00));
    }
    let body = pages(lun, page, subpage, control == 1).ok_or(Sense::INVALID_FIELD)?;
    let parameter = device_specific(lun);
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
    let (header, allocation) = if short {
        let total = u8::try_from(length + 3).unwrap_or(u8::MAX);
        (vec![total, 0, parameter, 0], usize::from(cdb[4]))
    } else {
        let [high, low] = (length + 6).to_be_bytes();
        (
            vec![high, low, 0, parameter, 0, 0, 0, 0],
            usize::from(be16(cdb, 7)),
        )
    };
    Ok(truncated([header, body].concat(), allocation))
}

/// Write protect and DPOFUA.
fn device_specific(lun: &Lun) -> u8 {
    let protected = if lun.write_protected() { 0x80 } else { 0 };
    protected | if lun.config.dpo_fua { 0x10 } else { 0 }
}

/// The pages asked for; nothing in them can be changed.
fn pages(lun: &Lun, page: u8, subpage: u8, changeable: bool) -> Option<Vec<u8>> {
    if subpage != 0 && subpage != 0xff {
        return None;
    }
    let all = [caching(lun), control(lun), exceptions()];
    let wanted = all
        .into_iter()
        .filter(|p| page == 0x3f || p.first() == Some(&page));
    let mut out = Vec::new();
    for mut p in wanted {
        if changeable {
            p.iter_mut().skip(2).for_each(|byte| *byte = 0);
        }
        out.extend(p);
    }
    (!out.is_empty()).then_some(out)
}

fn caching(lun: &Lun) -> Vec<u8> {
    let mut page = vec![0; 20];
    let write_cache = if lun.config.write_cache { 0x04 } else { 0 };
    crate::bytes::put(&mut page, 0, &[0x08, 18, write_cache]);
    page
}

fn control(lun: &Lun) -> Vec<u8> {
    let mut page = vec![0; 12];
    let protected = if lun.write_protected() { 0x08 } else { 0 };
    // Unrestricted reordering; no descriptor sense by itself.
    crate::bytes::put(&mut page, 0, &[0x0a, 10, 0x00, 0x10, protected]);
    page
}

fn exceptions() -> Vec<u8> {
    let mut page = vec![0; 12];
    crate::bytes::put(&mut page, 0, &[0x1c, 10, 0x08]);
    page
}

#[cfg(test)]
mod tests {
    use super::super::lun_for_tests;
    use super::*;
    use crate::config::LunConfig;

    fn ask(config: LunConfig, page: u8) -> Result<Vec<u8>, Sense> {
        let mut cdb = [0; 16];
        crate::bytes::put(&mut cdb, 0, &[0x1a, 0, page, 0, 255]);
        sense(&lun_for_tests(config), &cdb)
            .map(|reply| reply.data.slices().collect::<Vec<_>>().concat())
    }

    #[test]
    fn tells_write_protect_and_write_cache() {
        let config = LunConfig {
            write_protected: true,
            dpo_fua: false,
            ..LunConfig::default()
        };
        let data = ask(config, 0x08).unwrap();
        assert_eq!((data[2], data[4], data[6]), (0x80, 0x08, 0x04));
        assert_eq!(usize::from(data[0]) + 1, data.len());
    }

    #[test]
    fn refuses_pages_it_does_not_have() {
        assert_eq!(ask(LunConfig::default(), 0x19), Err(Sense::INVALID_FIELD));
    }
}
