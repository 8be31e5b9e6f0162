//! Lists, cut into pages.

use std::fmt;

use serde::de::{DeserializeOwned, Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::cursor;
use super::problem::Problem;

/// Items on a page where the client says nothing.
const DEFAULT_LIMIT: u16 = 50;

/// The most a client may ask for at once.
const MAX_LIMIT: u16 = 250;

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// The `cursor` of the next page; `null` on the last.
    #[schema(required)]
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// Makes a page of rows fetched with [`PageQuery::fetch`]: the one too many says that there is a next page, which
    /// begins after the `key` of the last row on this one.
    ///
    /// # Errors
    /// [`super::Code::Internal`] for a key that JSON cannot hold.
    pub fn cut<K: Serialize>(mut rows: Vec<T>, query: &PageQuery, key: impl FnOnce(&T) -> K) -> Result<Self, Problem> {
        let limit = usize::from(query.limit);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = match rows.last() {
            Some(last) if more => Some(cursor::encode(&key(last))?),
            _ => None,
        };
        Ok(Self { items: rows, next })
    }

    /// The same page with each item made into something else.
    pub fn map<U>(self, each: impl FnMut(T) -> U) -> Page<U> {
        Page {
            items: self.items.into_iter().map(each).collect(),
            next: self.next,
        }
    }
}

/// The part of a query every list understands. May stand in a larger query type with `#[serde(flatten)]`; serde then
/// lets unknown names pass, so give that type the two fields itself where it has others and should refuse them.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Most items on the page.
    #[serde(default = "default_limit", deserialize_with = "limit")]
    #[param(minimum = 1, maximum = 250, default = 50)]
    pub limit: u16,
    /// The `next` of the page before; nothing is the beginning of the list.
    #[serde(default)]
    pub cursor: Option<String>,
}

impl Default for PageQuery {
    fn default() -> Self {
        Self {
            limit: DEFAULT_LIMIT,
            cursor: None,
        }
    }
}

impl PageQuery {
    /// The key of the row before this page.
    ///
    /// # Errors
    /// [`super::Code::MalformedQuery`] for a cursor that is not one of this list.
    pub fn after<K: DeserializeOwned>(&self) -> Result<Option<K>, Problem> {
        self.cursor.as_deref().map(cursor::decode).transpose()
    }

    /// How many rows to fetch: one too many, to see whether there are more.
    #[must_use]
    pub fn fetch(&self) -> i64 {
        i64::from(self.limit) + 1
    }
}

/// The `limit` of a client that names none, for `#[serde(default)]` in other query types.
#[must_use]
pub fn default_limit() -> u16 {
    DEFAULT_LIMIT
}

/// Reads a `limit`, for `#[serde(deserialize_with)]` in other query types. In a flattened query everything is text, so
/// numbers are taken as text, too.
///
/// # Errors
/// Anything but a number from 1 to 250.
pub fn limit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    struct Limit;

    impl Visitor<'_> for Limit {
        type Value = u16;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a number from 1 to {MAX_LIMIT}")
        }

        fn visit_u64<E: Error>(self, value: u64) -> Result<u16, E> {
            u16::try_from(value)
                .ok()
                .filter(|limit| (1..=MAX_LIMIT).contains(limit))
                .ok_or_else(|| E::custom(format_args!("`limit` must be a number from 1 to {MAX_LIMIT}")))
        }

        fn visit_str<E: Error>(self, value: &str) -> Result<u16, E> {
            // What is no number is refused like the number 0.
            self.visit_u64(value.parse().unwrap_or_default())
        }
    }

    deserializer.deserialize_any(Limit)
}

#[cfg(test)]
mod tests {
    use axum::http::Uri;

    use super::*;

    fn read<T: DeserializeOwned>(query: &str) -> Result<T, String> {
        let uri: Uri = format!("/list?{query}").parse().unwrap();
        super::super::query::read(&uri).map_err(|problem| problem.detail().unwrap_or_default().to_owned())
    }

    #[test]
    fn a_limit_is_between_1_and_250() {
        assert_eq!(read::<PageQuery>("").unwrap().limit, 50);
        assert_eq!(read::<PageQuery>("limit=1").unwrap().limit, 1);
        assert_eq!(read::<PageQuery>("limit=250").unwrap().fetch(), 251);
        for limit in ["0", "251", "-1", "ten", "", "99999999999999999999"] {
            let error = read::<PageQuery>(&format!("limit={limit}")).unwrap_err();
            assert!(
                error.contains("`limit` must be a number from 1 to 250"),
                "{limit}: {error}"
            );
        }
    }

    #[test]
    fn an_unknown_name_is_refused() {
        let error = read::<PageQuery>("limits=3").unwrap_err();
        assert!(error.contains("unknown field `limits`"), "{error}");
    }

    #[test]
    fn a_query_may_have_more_than_the_page() {
        #[derive(Deserialize)]
        struct Events {
            r#type: Option<String>,
            #[serde(flatten)]
            page: PageQuery,
        }
        let query: Events = read("type=a.b&limit=7&cursor=abc").unwrap();
        assert_eq!(query.r#type.as_deref(), Some("a.b"));
        assert_eq!((query.page.limit, query.page.cursor.as_deref()), (7, Some("abc")));
        assert!(read::<Events>("limit=0").is_err());
    }

    #[test]
    fn pages_follow_one_another_to_the_end() {
        let all: Vec<u32> = (0..5).collect();
        let mut query = PageQuery { limit: 2, cursor: None };
        let mut seen = Vec::new();
        loop {
            let after: Option<u32> = query.after().unwrap();
            let rest = all.iter().copied().filter(|n| after.is_none_or(|after| *n > after));
            let rows: Vec<u32> = rest.take(usize::try_from(query.fetch()).unwrap()).collect();
            let page = Page::cut(rows, &query, |n| *n).unwrap();
            seen.push(page.items.clone());
            query.cursor = page.next;
            if query.cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen, [vec![0, 1], vec![2, 3], vec![4]]);
    }

    #[test]
    fn the_last_page_says_so() {
        let page = Page::cut(vec![1, 2], &PageQuery::default(), |n| *n)
            .unwrap()
            .map(|n| n * 10);
        assert_eq!(
            serde_json::to_string(&page).unwrap(),
            r#"{"items":[10,20],"next":null}"#
        );
    }
}
