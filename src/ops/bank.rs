//! The memory bank: rows gathered by index, and rows blended with new embeddings in place.

use super::case::{Case, Elements, Input};
use super::{Cost, Host, Operand, Operation, shape};
use crate::gpu::Launch;
use crate::tape::{Type, ValueId};
use crate::{Error, Result};

const SHADER: &str = "bank";

/// y\[k\] = table\[index\[k\]\]. Inputs: table `[rows, columns]`, index `[count]`; no gradient.
///
/// An index beyond the table gives zeros.
#[derive(Clone, Debug)]
pub struct GatherRows;

impl Operation for GatherRows {
    fn name(&self) -> &'static str {
        "bank.gather"
    }
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [table, index] = shape::exactly(self.name(), inputs, ["table", "index"])?;
        let [_, columns] = shape::floats(self.name(), table, "the table")?;
        let [count] = shape::words(self.name(), index, "the indices")?;
        Ok(vec![Type::f32([count, columns])])
    }
    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let columns = inputs[0].shape[1];
        let mut y = Vec::new();
        for &k in inputs[1].data {
            match inputs[0].data.chunks(columns).nth(k as usize) {
                Some(row) => y.extend_from_slice(row),
                None => y.extend(vec![0.0; columns]),
            }
        }
        vec![y]
    }
    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let &[rows, columns] = inputs[0].shape else { unreachable!("checked by the shape rule") };
        vec![
            launch("gather", outputs[0].len(), rows, columns, 0.0, 0.0)
                .bind("x", inputs[0].id)
                .bind("index", inputs[1].id)
                .bind("y", outputs[0].id),
        ]
    }
    fn cost(&self, inputs: &[Operand], outputs: &[Operand]) -> Cost {
        // Of the table only the rows that become the output.
        Cost::moving(inputs[1..].iter().chain(outputs)).and_moving(outputs)
    }
}

fn launch(entry: &'static str, n: usize, rows: usize, columns: usize, keep: f32, take: f32) -> Launch<ValueId> {
    Launch::items(SHADER, entry, n)
        .param("columns", columns)
        .param("rows", rows)
        .param("keep", keep)
        .param("take", take)
}

/// bank\[index\[i\]\] = `momentum` bank\[index\[i\]\] + (1 - `momentum`) z\[i\], in place.
///
/// Inputs: index `[batch]` (distinct; one beyond the bank is skipped), z `[at least batch, columns]`, whose
/// first rows are the untransformed images; optionally written `[at least batch]`: 1 where the bank row has been
/// written before, 0 where it is replaced by z\[i\]. Target: bank `[rows, columns]`.
#[derive(Clone, Debug)]
pub struct BankUpdate {
    /// Share of the old row.
    pub momentum: f32,
}

impl Operation for BankUpdate {
    fn name(&self) -> &'static str {
        "bank.blend"
    }
    fn in_place(&self) -> bool {
        true
    }
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let (index, z, written, bank) = match inputs {
            [index, z, written, bank] => (index, z, Some(written), bank),
            _ => {
                let [index, z, bank] = shape::exactly(self.name(), inputs, ["index", "z", "bank"])?;
                (index, z, None, bank)
            }
        };
        let [batch] = shape::words(self.name(), index, "the indices")?;
        let [rows, columns] = shape::floats(self.name(), z, "the new rows")?;
        let [_, wanted] = shape::floats(self.name(), bank, "the bank")?;
        shape::same(self.name(), "a new row", &[columns], &[wanted])?;
        if rows < batch {
            return Err(Error::shape(self.name(), format!("there are {rows} new rows for {batch} indices")));
        }
        if let Some(written) = written {
            let [rows] = shape::floats(self.name(), written, "the list of written rows")?;
            if rows < batch {
                return Err(Error::shape(self.name(), format!("it is told of {rows} rows for {batch} indices")));
            }
        }
        Ok(vec![bank.clone()])
    }
    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let momentum = f64::from(self.momentum);
        let (target, written) = (inputs[inputs.len() - 1], (inputs.len() > 3).then(|| inputs[2].data));
        let [rows, columns] = [target.shape[0], target.shape[1]];
        let mut bank = target.data.to_vec();
        for (i, &row) in inputs[0].data.iter().enumerate() {
            let momentum = momentum * written.map_or(1.0, |written| written[i]);
            for c in 0..columns {
                if (row as usize) < rows {
                    let old = &mut bank[row as usize * columns + c];
                    *old = momentum * *old + (1.0 - momentum) * inputs[1].data[i * columns + c];
                }
            }
        }
        vec![bank]
    }
    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let &[rows, columns] = outputs[0].shape else { unreachable!("checked by the shape rule") };
        let take = (1.0 - f64::from(self.momentum)) as f32;
        let written = inputs.get(2);
        let entry = if written.is_some() { "blend_or_replace" } else { "blend" };
        let launch = launch(entry, inputs[0].len() * columns, rows, columns, self.momentum, take)
            .bind("index", inputs[0].id)
            .bind("x", inputs[1].id)
            .bind("y", outputs[0].id);
        vec![match written {
            Some(written) => launch.bind("written", written.id),
            None => launch,
        }]
    }
    fn cost(&self, inputs: &[Operand], outputs: &[Operand]) -> Cost {
        // One row of z and of the bank for each index; the bank's is read and written.
        let rows = inputs[0].len() as u64;
        Cost { bytes: 4 * rows * (1 + 3 * outputs[0].shape[1] as u64), ..Cost::default() }
    }
}

/// Cases for `check` and the tests.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let table = |rows: usize, columns: usize| Input::constant([rows, columns], Elements::Normal(0.0, 1.0));
    for (rows, columns, count) in [(1, 1, 1), (7, 3, 12), (100, 64, 37), (997, 16, 257), (20, 65, 64)] {
        let what = format!("{count} of {rows} rows of {columns}");
        // Some indices lie beyond the table.
        let index = Input::integers([count], Elements::Below(rows as u32 + rows as u32 / 4 + 1));
        cases.push(Case::new(what, GatherRows, vec![table(rows, columns), index]).tolerance(0.0));
    }
    for (rows, columns, batch, copies) in [(1, 1, 1, 1), (7, 3, 4, 4), (100, 64, 32, 16), (997, 16, 131, 2)] {
        let what = format!("{batch} of {rows} rows of {columns}, {copies} views");
        let index: Vec<f64> = (0..batch).map(|i| ((i * 11 + 3) % rows) as f64).collect();
        let index = Input::integers([batch], Elements::Values(index));
        let inputs = vec![index, table(copies * batch, columns), table(rows, columns)];
        cases.push(Case::new(what, BankUpdate { momentum: 0.99 }, inputs));
    }
    for (rows, columns, batch) in [(1, 1, 1), (9, 5, 7), (100, 64, 28)] {
        let what = format!("{batch} of {rows} rows of {columns}, some of them new");
        let index = (0..batch).map(|i| ((i * 11 + 3) % rows) as f64).collect();
        let written =
            Input::constant([batch + 2], Elements::Values((0..batch + 2).map(|i| (i % 3 / 2) as f64).collect()));
        let index = Input::integers([batch], Elements::Values(index));
        let inputs = vec![index, table(2 * batch, columns), written, table(rows, columns)];
        cases.push(Case::new(what, BankUpdate { momentum: 0.75 }, inputs));
    }
    let index = Input::integers([3], Elements::Values(vec![4.0, 1.0, 4e9]));
    let inputs = vec![index, table(3, 5), table(4, 5)];
    cases.push(Case::new("indices beyond the bank", BankUpdate { momentum: 0.5 }, inputs));
    cases
}
